/* SPDX-License-Identifier: MIT */
/*
 * The register transport against a device of memory: what it writes before the doorbell,
 * how it waits, what it believes of old and new devices, and who holds the lock.
 */
#include "guest/mmio.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/units.h"
#include "guest/handle.h"
#include "proto/request.h"
#include "test_guest_env.h"
#include "vgpu/wire.h"

struct device {
	struct fake_env env;
	uint8_t bar[VGPU_BAR0_BYTES];
	int64_t takes_ns; /* from doorbell to answer */
	int64_t done_at_ns;
	uint32_t final_status;
	uint32_t doorbells;
	uint32_t status_reads;
	bool locked;
	bool locked_by_other;
	bool freed;
};

static uint32_t get(const struct device *device, uint32_t offset)
{
	return vgpu_get_le32(device->bar + offset);
}

static void set(struct device *device, uint32_t offset, uint32_t value)
{
	vgpu_put_le32(device->bar + offset, value);
}

static uint32_t device_read32(void *context, uint32_t offset)
{
	struct device *device = context;

	assert_int_equal(offset % 4, 0);
	assert_true(offset < VGPU_BAR0_BYTES);
	/* Registers above belong to devices that announce them. */
	if (offset >= VGPU_REG_LINK)
		assert_true(get(device, VGPU_REG_CAPABILITIES) & VGPU_CAP_EXTENDED_REGISTERS);
	device->status_reads += offset == VGPU_REG_STATUS;
	if (offset == VGPU_REG_STATUS && get(device, offset) == VGPU_STATUS_BUSY &&
	    device->env.now_ns >= device->done_at_ns)
		set(device, offset, device->final_status);
	return get(device, offset);
}

static void device_write32(void *context, uint32_t offset, uint32_t value)
{
	struct device *device = context;

	assert_int_equal(offset % 4, 0);
	assert_true(device->locked);
	assert_int_not_equal(get(device, VGPU_REG_STATUS), VGPU_STATUS_BUSY);
	set(device, offset, value);
	if (offset != VGPU_REG_DOORBELL)
		return;
	assert_int_equal(value, 1);
	device->doorbells++;
	device->done_at_ns = device->env.now_ns + device->takes_ns;
	set(device, VGPU_REG_STATUS, VGPU_STATUS_BUSY);
}

static int device_try_lock(void *context)
{
	struct device *device = context;

	assert_false(device->locked);
	if (device->locked_by_other)
		return -EWOULDBLOCK;
	device->locked = true;
	return 0;
}

static void device_unlock(void *context)
{
	struct device *device = context;

	assert_true(device->locked);
	device->locked = false;
}

static void device_free(void *context)
{
	((struct device *)context)->freed = true;
}

static const struct bar_ops device_ops = {device_read32, device_write32, device_try_lock,
                                          device_unlock, device_free};

static void respond(struct device *device, uint32_t status, const uint32_t *results, uint32_t count)
{
	set(device, VGPU_REG_RESPONSE_LEN,
	    (uint32_t)response_encode(device->bar + VGPU_REG_RESPONSE, status, 42, results, count,
	                              "name", 4));
}

static struct vgpu *open_fake(struct device *device, uint32_t capabilities)
{
	struct guest_env env = fake_env(&device->env);
	struct transport *transport;
	struct vgpu *vgpu;

	device->env.step_ns = 1000;
	device->final_status = VGPU_STATUS_DONE;
	set(device, VGPU_REG_PROTOCOL_VER, VGPU_PROTOCOL_VERSION);
	set(device, VGPU_REG_CAPABILITIES, VGPU_CAP_REQUEST_RESPONSE | capabilities);
	assert_int_equal(mmio_new(&transport, &device_ops, device, "0000:00:05.0", &env), 0);
	assert_int_equal(handle_new(&vgpu, transport, &env), 0);
	return vgpu;
}

static const uint32_t addends[] = {100, 200};
static const struct vgpu_request add = {
	.opcode = VGPU_OP_CUDA_KERNEL, .params = addends, .param_count = 2};

static void test_request_and_response(void **state UNUSED)
{
	const uint32_t sum[] = {300};
	struct vgpu_request odd = add;
	struct device device = {0};
	struct vgpu *vgpu = open_fake(&device, 0);
	struct vgpu_response response;
	struct request_view request;

	odd.data = "abcde";
	odd.data_bytes = 5;
	respond(&device, VGPU_CODE_OK, sum, 1);
	assert_int_equal(vgpu_call(vgpu, &odd, &response), 0);
	assert_int_equal(response.results[0], 300);
	assert_int_equal(response.exec_time_us, 42);
	assert_memory_equal(response.data, "name", 4);

	assert_int_equal(get(&device, VGPU_REG_REQUEST_LEN), 45);
	assert_int_not_equal(get(&device, VGPU_REG_REQUEST_ID), 0);
	assert_int_equal(request_decode(&request, device.bar + VGPU_REG_REQUEST, 45, NULL), 0);
	assert_int_equal(request_param(&request, 1), 200);
	assert_memory_equal(request.data, "abcde", 5);
	assert_false(device.locked);
	vgpu_close(vgpu);
	assert_true(device.freed);
}

/* Quick answers are met by polling without a sleep, slow ones with few looks. */
static void test_waiting(void **state UNUSED)
{
	struct device device = {.takes_ns = 20 * NS_PER_US};
	struct vgpu *vgpu = open_fake(&device, 0);
	struct vgpu_response response;

	respond(&device, VGPU_CODE_OK, NULL, 0);
	assert_int_equal(vgpu_call(vgpu, &add, &response), 0);
	assert_int_equal(device.env.sleeps, 0);

	device.takes_ns = NS_PER_SEC;
	device.status_reads = 0;
	assert_int_equal(vgpu_call(vgpu, &add, &response), 0);
	assert_true(device.env.sleeps > 900);
	assert_true(device.status_reads < 1500);
	for (unsigned int i = 0; i < ARRAY_LEN(device.env.slept_ns); i++)
		assert_in_range(device.env.slept_ns[i], 1, NS_PER_MS);
	vgpu_close(vgpu);
}

static void test_errors_of_a_new_device(void **state UNUSED)
{
	const uint32_t failure[] = {1, 9};
	struct device device = {0};
	struct vgpu *vgpu = open_fake(&device, VGPU_CAP_EXTENDED_REGISTERS);
	struct vgpu_response response;

	vgpu_set_retries(vgpu, 0);
	device.final_status = VGPU_STATUS_ERROR;
	set(&device, VGPU_REG_ERROR_CODE, VGPU_CODE_RATE_LIMITED);
	set(&device, VGPU_REG_BUSY_REASON, VGPU_BUSY_GPU_RESET);
	set(&device, VGPU_REG_RETRY_AFTER_US, 77);
	assert_int_equal(vgpu_call(vgpu, &add, &response), VGPU_CODE_RATE_LIMITED);
	assert_int_equal(response.reason, VGPU_BUSY_GPU_RESET);
	assert_int_equal(response.retry_after_us, 77);

	set(&device, VGPU_REG_ERROR_CODE, VGPU_CODE_CUDA);
	set(&device, VGPU_REG_ERROR_DETAIL, 700);
	respond(&device, VGPU_CODE_CUDA, failure, 2);
	assert_int_equal(vgpu_call(vgpu, &add, &response), VGPU_CODE_CUDA);
	assert_int_equal(response.detail, 700);

	set(&device, VGPU_REG_ERROR_CODE, VGPU_CODE_QUARANTINED);
	set(&device, VGPU_REG_RESPONSE_LEN, 0);
	assert_int_equal(vgpu_call(vgpu, &add, &response), VGPU_CODE_QUARANTINED);
	vgpu_close(vgpu);
}

static void test_errors_of_an_old_device(void **state UNUSED)
{
	const uint32_t refusal[] = {VGPU_BUSY_RATE, 5};
	struct device device = {0};
	struct vgpu *vgpu = open_fake(&device, 0);
	struct vgpu_response response;

	vgpu_set_retries(vgpu, 0);
	device.final_status = VGPU_STATUS_ERROR;
	respond(&device, VGPU_CODE_RATE_LIMITED, refusal, 2);
	set(&device, VGPU_REG_ERROR_CODE, VGPU_CODE_CUDA);
	assert_int_equal(vgpu_call(vgpu, &add, &response), VGPU_CODE_RATE_LIMITED);
	assert_int_equal(response.retry_after_us, 5);

	/* It has no registers for the reason. */
	set(&device, VGPU_REG_ERROR_CODE, VGPU_CODE_RATE_LIMITED);
	assert_int_equal(vgpu_call(vgpu, &add, &response), VGPU_CODE_RATE_LIMITED);
	assert_int_equal(response.retry_after_us, 0);

	/* The response of before still lies in the buffer, and is not this one's. */
	set(&device, VGPU_REG_ERROR_CODE, VGPU_CODE_UNAVAILABLE);
	assert_int_equal(vgpu_call(vgpu, &add, &response), VGPU_CODE_UNAVAILABLE);
	assert_int_equal(response.result_count, 0);
	vgpu_close(vgpu);
}

static void test_timeout_keeps_the_device_busy(void **state UNUSED)
{
	struct device device = {.takes_ns = NS_PER_SEC};
	struct vgpu *vgpu = open_fake(&device, 0);
	struct vgpu_response response;
	uint32_t id;

	respond(&device, VGPU_CODE_OK, NULL, 0);
	vgpu_set_timeout(vgpu, 100000);
	assert_int_equal(vgpu_call(vgpu, &add, &response), VGPU_E_TIMED_OUT);
	assert_false(device.locked);
	assert_int_equal(vgpu_call(vgpu, &add, &response), VGPU_E_BUSY);
	assert_false(device.locked);
	assert_int_equal(vgpu_submit(vgpu, &add, 0, &id), VGPU_E_BUSY);
	assert_int_equal(device.doorbells, 1);
	/* With more time the next one waits for the end of the first. */
	vgpu_set_timeout(vgpu, 5000000);
	assert_int_equal(vgpu_call(vgpu, &add, &response), 0);
	assert_int_equal(device.doorbells, 2);
	vgpu_close(vgpu);
}

static void test_lock(void **state UNUSED)
{
	struct device device = {.locked_by_other = true};
	struct vgpu *vgpu = open_fake(&device, 0);
	struct vgpu_response response;
	uint32_t id;

	assert_int_equal(vgpu_submit(vgpu, &add, 1000, &id), VGPU_E_BUSY);
	assert_int_equal(device.doorbells, 0);
	device.locked_by_other = false;
	assert_int_equal(vgpu_submit(vgpu, &add, 1000, &id), 0);
	assert_true(device.locked);
	respond(&device, VGPU_CODE_OK, NULL, 0);
	assert_int_equal(vgpu_wait(vgpu, id, 1000, &response), 0);
	assert_false(device.locked);
	assert_int_equal(vgpu_submit(vgpu, &add, 1000, &id), 0);
	vgpu_close(vgpu);
	assert_false(device.locked);
}

static void test_nonsense(void **state UNUSED)
{
	static const struct {
		uint32_t status, response_bytes, error_code;
		int result;
	} rows[] = {
		{VGPU_STATUS_IDLE, 0, 0, VGPU_E_CLOSED},
		{17, 0, 0, VGPU_E_PROTOCOL},
		{UINT32_MAX, 0, 0, VGPU_E_NO_DEVICE},
		{VGPU_STATUS_DONE, 0, 0, VGPU_E_PROTOCOL},
		{VGPU_STATUS_DONE, 1025, 0, VGPU_E_PROTOCOL},
		{VGPU_STATUS_DONE, 31, 0, VGPU_E_PROTOCOL},
		{VGPU_STATUS_ERROR, 0, 0, VGPU_E_PROTOCOL},
		{VGPU_STATUS_ERROR, 0, 0xffffffff, VGPU_E_PROTOCOL},
	};
	struct vgpu_response response;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct device device = {0};
		struct vgpu *vgpu = open_fake(&device, 0);

		device.final_status = rows[i].status;
		set(&device, VGPU_REG_RESPONSE_LEN, rows[i].response_bytes);
		set(&device, VGPU_REG_ERROR_CODE, rows[i].error_code);
		assert_int_equal(vgpu_call(vgpu, &add, &response), rows[i].result);
		assert_false(device.locked);
		vgpu_close(vgpu);
	}
}

static void test_open_refuses(void **state UNUSED)
{
	struct device device = {0};
	struct guest_env env = fake_env(&device.env);
	struct transport *transport;

	set(&device, VGPU_REG_PROTOCOL_VER, 0x00020000);
	assert_int_equal(mmio_new(&transport, &device_ops, &device, "x", &env), VGPU_E_PROTOCOL);
	assert_true(device.freed);
	device.freed = false;
	set(&device, VGPU_REG_PROTOCOL_VER, UINT32_MAX);
	assert_int_equal(mmio_new(&transport, &device_ops, &device, "x", &env), VGPU_E_NO_DEVICE);
	assert_true(device.freed);
}

static void test_info(void **state UNUSED)
{
	struct device device = {0};
	struct vgpu *vgpu = open_fake(&device, 0);
	struct vgpu_info info;

	set(&device, VGPU_REG_VM_ID, 200);
	set(&device, VGPU_REG_POOL_ID, 'B');
	set(&device, VGPU_REG_LINK, 3);
	assert_int_equal(vgpu_get_info(vgpu, &info), 0);
	assert_true(info.is_device);
	assert_int_equal(info.vm_id, 200);
	assert_int_equal(info.pool_id, 'B');
	assert_int_equal(info.link, 0);
	assert_int_equal(info.outstanding_max, 1);
	assert_string_equal(info.name, "0000:00:05.0");
	vgpu_close(vgpu);

	vgpu = open_fake(&device, VGPU_CAP_EXTENDED_REGISTERS);
	set(&device, VGPU_REG_MMIO_WRITES, 12);
	assert_int_equal(vgpu_get_info(vgpu, &info), 0);
	assert_int_equal(info.link, 3);
	assert_int_equal(info.mmio_writes, 12);
	set(&device, VGPU_REG_PROTOCOL_VER, UINT32_MAX);
	assert_int_equal(vgpu_get_info(vgpu, &info), VGPU_E_NO_DEVICE);
	vgpu_close(vgpu);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_request_and_response),
		cmocka_unit_test(test_waiting),
		cmocka_unit_test(test_errors_of_a_new_device),
		cmocka_unit_test(test_errors_of_an_old_device),
		cmocka_unit_test(test_timeout_keeps_the_device_busy),
		cmocka_unit_test(test_lock),
		cmocka_unit_test(test_nonsense),
		cmocka_unit_test(test_open_refuses),
		cmocka_unit_test(test_info),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
