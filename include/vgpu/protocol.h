/* SPDX-License-Identifier: MIT */
/*
 * The bytes that guest, device and mediator agree on.
 *
 * Everything here is little-endian and 32 bits wide unless said otherwise. The
 * first half (PCI identity to socket header) is the first protocol and never
 * changes; what is new since then is announced by a capability bit or by a
 * HELLO message before a peer may use it.
 *
 * The header is C99 so that it compiles into QEMU, the guest and the host
 * programs alike. docs/protocol.md explains it in prose.
 */
#ifndef VGPU_PROTOCOL_H
#define VGPU_PROTOCOL_H

/* ---- PCI identity ------------------------------------------------------- */

#define VGPU_PCI_VENDOR_ID 0x1AF4
#define VGPU_PCI_DEVICE_ID 0x1111
#define VGPU_PCI_CLASS     0x1200 /* processing accelerator */
#define VGPU_PCI_REVISION  0x02

/* ---- BAR0 --------------------------------------------------------------- */

#define VGPU_BAR0_BYTES 0x1000

enum vgpu_register {
	VGPU_REG_DOORBELL = 0x000,     /* W: writing 1 submits */
	VGPU_REG_STATUS = 0x004,       /* R: enum vgpu_status */
	VGPU_REG_POOL_ID = 0x008,      /* R: ASCII letter */
	VGPU_REG_PRIORITY = 0x00C,     /* R: enum vgpu_priority */
	VGPU_REG_VM_ID = 0x010,        /* R */
	VGPU_REG_ERROR_CODE = 0x014,   /* R: enum vgpu_code */
	VGPU_REG_REQUEST_LEN = 0x018,  /* RW: bytes, 1..1024 */
	VGPU_REG_RESPONSE_LEN = 0x01C, /* R: bytes */
	VGPU_REG_PROTOCOL_VER = 0x020, /* R: VGPU_PROTOCOL_VERSION */
	VGPU_REG_CAPABILITIES = 0x024, /* R: VGPU_CAP_* */
	VGPU_REG_IRQ_CTRL = 0x028,     /* RW: bit 0 enables the interrupt */
	VGPU_REG_IRQ_STATUS = 0x02C,   /* RW1C: bit 0 completion */
	VGPU_REG_REQUEST_ID = 0x030,   /* RW: chosen by the guest */
	VGPU_REG_TIMESTAMP_LO = 0x034, /* R: completion, us of QEMU's virtual clock */
	VGPU_REG_TIMESTAMP_HI = 0x038, /* R */
	VGPU_REG_SCRATCH = 0x03C,      /* RW */
	VGPU_REG_REQUEST = 0x040,      /* RW: 1024 bytes */
	VGPU_REG_RESPONSE = 0x440,     /* R: 1024 bytes */
	/* From here on: present when VGPU_CAP_EXTENDED_REGISTERS is set. */
	VGPU_REG_LINK = 0x840,           /* R: VGPU_LINK_* */
	VGPU_REG_BUSY_REASON = 0x844,    /* R: enum vgpu_busy_reason */
	VGPU_REG_RETRY_AFTER_US = 0x848, /* R */
	VGPU_REG_ERROR_DETAIL = 0x84C,   /* R: CUresult, with VGPU_CODE_CUDA */
	VGPU_REG_CHANNELS = 0x850,       /* R */
	VGPU_REG_WINDOW_KIB = 0x854,     /* R */
	VGPU_REG_MMIO_READS = 0x858,     /* R: accesses since reset */
	VGPU_REG_MMIO_WRITES = 0x85C,    /* R */
	VGPU_REG_END = 0x860,
};

#define VGPU_PROTOCOL_VERSION 0x00010000u /* major << 16 | minor */
#define VGPU_MESSAGE_BYTES    1024        /* either buffer, and a socket payload */

enum vgpu_status {
	VGPU_STATUS_IDLE = 0,
	VGPU_STATUS_BUSY = 1,
	VGPU_STATUS_DONE = 2,
	VGPU_STATUS_ERROR = 3,
};

enum vgpu_priority {
	VGPU_PRIORITY_LOW = 0,
	VGPU_PRIORITY_MEDIUM = 1,
	VGPU_PRIORITY_HIGH = 2,
};

/* CAPABILITIES */
#define VGPU_CAP_REQUEST_RESPONSE   (1u << 0)
#define VGPU_CAP_MSIX               (1u << 1)
#define VGPU_CAP_DMA                (1u << 2)
#define VGPU_CAP_CHANNELS           (1u << 3)
#define VGPU_CAP_EXTENDED_REGISTERS (1u << 4)

#define VGPU_IRQ_COMPLETION (1u << 0) /* IRQ_CTRL and IRQ_STATUS */

/* LINK */
#define VGPU_LINK_CONNECTED (1u << 0)
#define VGPU_LINK_EXTENDED  (1u << 1) /* the mediator said HELLO */
#define VGPU_LINK_WINDOW    (1u << 2)

/* ERROR_CODE, and the status word of a response. */
enum vgpu_code {
	VGPU_CODE_OK = 0x00,
	VGPU_CODE_INVALID_REQUEST = 0x01,
	VGPU_CODE_TOO_LARGE = 0x02,
	VGPU_CODE_UNAVAILABLE = 0x03, /* no mediator */
	VGPU_CODE_TIMEOUT = 0x04,
	VGPU_CODE_CUDA = 0x05, /* the job failed on the GPU */
	VGPU_CODE_INVALID_POOL = 0x06,
	VGPU_CODE_QUEUE_FULL = 0x07,
	VGPU_CODE_UNSUPPORTED = 0x08,
	VGPU_CODE_INVALID_LENGTH = 0x09,
	VGPU_CODE_RATE_LIMITED = 0x0A, /* retry later */
	VGPU_CODE_QUARANTINED = 0x0B,  /* do not retry */
	VGPU_CODE_CONTEXT_LOST = 0x0C,
	VGPU_CODE_MEMORY_QUOTA = 0x0D,
	VGPU_CODE_CANCELLED = 0x0E,
	VGPU_CODE_COUNT,
};

enum vgpu_busy_reason {
	VGPU_BUSY_RATE = 1,
	VGPU_BUSY_DEPTH = 2,
	VGPU_BUSY_GPU_RESET = 3,
};

/* ---- Request and response ----------------------------------------------- */

#define VGPU_HEADER_BYTES 32 /* of a request and of a response */

/* Byte offsets in a request; parameters (u32 each) follow the header, then data. */
enum vgpu_request_field {
	VGPU_REQUEST_VERSION = 0,
	VGPU_REQUEST_OPCODE = 4,
	VGPU_REQUEST_FLAGS = 8,
	VGPU_REQUEST_PARAM_COUNT = 12,
	VGPU_REQUEST_DATA_OFFSET = 16, /* from the start of the header */
	VGPU_REQUEST_DATA_LENGTH = 20,
	VGPU_REQUEST_RESERVED = 24, /* two words, 0 */
};

/* Byte offsets in a response; results (u32 each) follow the header, then data. */
enum vgpu_response_field {
	VGPU_RESPONSE_VERSION = 0,
	VGPU_RESPONSE_STATUS = 4, /* enum vgpu_code */
	VGPU_RESPONSE_RESULT_COUNT = 8,
	VGPU_RESPONSE_DATA_OFFSET = 12,
	VGPU_RESPONSE_DATA_LENGTH = 16,
	VGPU_RESPONSE_EXEC_TIME_US = 20,
	VGPU_RESPONSE_RESERVED = 24,
};

enum vgpu_opcode {
	VGPU_OP_NOP = 0x0000,
	VGPU_OP_CUDA_KERNEL = 0x0001, /* int32 a, b -> a + b, wrapping */
	VGPU_OP_MEMORY_ALLOC = 0x0002,
	VGPU_OP_MEMORY_FREE = 0x0003,
	VGPU_OP_MEMORY_COPY = 0x0004,
	VGPU_OP_GET_DEVICE_INFO = 0x0005,
	VGPU_OP_SYNCHRONIZE = 0x0006,
	/* Refused as unsupported unless the mediator allows test operations. */
	VGPU_OP_SPIN = 0x1000,  /* parameter: us of GPU time, at most VGPU_SPIN_MAX_US */
	VGPU_OP_FAULT = 0x1001, /* an illegal access */
	VGPU_OP_HANG = 0x1002,  /* never ends by itself */
	/* Allowed everywhere. See include/vgpu/sgemm.h. */
	VGPU_OP_SGEMM = 0x1003, /* n, seed -> checksum lo, hi, 4 elements */
	/*
	 * For tests again. 1: takes memory, fills it with a pattern and keeps it, 0: takes fresh
	 * memory and looks what is in it; MiB at most -> MiB taken, 64-bit words that are
	 * the pattern lo, hi, words that are not zero lo, hi.
	 */
	VGPU_OP_RESIDUE = 0x1004,
};

#define VGPU_SPIN_MAX_US 600000000u

/* Results of GET_DEVICE_INFO, by index; its data is the device's name, UTF-8. */
enum vgpu_device_info {
	VGPU_INFO_BACKEND = 0,    /* 0 cpu, 1 cuda */
	VGPU_INFO_CAPABILITY = 1, /* major << 16 | minor */
	VGPU_INFO_MULTIPROCESSORS = 2,
	VGPU_INFO_QUOTA_MIB = 3, /* what the VM may use: without a quota all that the GPU has */
	VGPU_INFO_USED_MIB = 4,
	VGPU_INFO_COUNT,
};

/* ---- Socket between device and mediator ---------------------------------- */

#define VGPU_SOCKET_DEFAULT      "/tmp/vgpu-mediator.sock"
#define VGPU_SOCKET_MAGIC        0x56475055u /* "VGPU" */
#define VGPU_SOCKET_HEADER_BYTES 20

/* Byte offsets in the packed header; the payload follows. */
enum vgpu_socket_field {
	VGPU_SOCKET_FIELD_MAGIC = 0,
	VGPU_SOCKET_FIELD_TYPE = 4,
	VGPU_SOCKET_FIELD_VM_ID = 8,
	VGPU_SOCKET_FIELD_REQUEST_ID = 12,
	VGPU_SOCKET_FIELD_POOL_ID = 16,     /* char */
	VGPU_SOCKET_FIELD_PRIORITY = 17,    /* u8 */
	VGPU_SOCKET_FIELD_PAYLOAD_LEN = 18, /* u16, at most VGPU_MESSAGE_BYTES */
};

enum vgpu_message_type {
	VGPU_MSG_REQUEST = 0x01,
	VGPU_MSG_RESPONSE = 0x02,
	VGPU_MSG_PING = 0x03,
	VGPU_MSG_PONG = 0x04,
	/* Only to and from a peer that said HELLO. */
	VGPU_MSG_BUSY = 0x05,        /* enum vgpu_busy_field */
	VGPU_MSG_QUARANTINED = 0x06, /* no payload */
	VGPU_MSG_HELLO = 0x07,       /* enum vgpu_hello_field */
	VGPU_MSG_OPEN = 0x08,
	VGPU_MSG_CLOSE = 0x09,
	VGPU_MSG_SUBMIT = 0x0A,
	VGPU_MSG_COMPLETE = 0x0B,
};

#define VGPU_HELLO_VERSION 1

/* Features in HELLO. */
#define VGPU_FEATURE_BUSY   (1u << 0) /* BUSY and QUARANTINED understood */
#define VGPU_FEATURE_WINDOW (1u << 1)

/* Byte offsets in the payload of HELLO, u32 each. */
enum vgpu_hello_field {
	VGPU_HELLO_FIELD_VERSION = 0,
	VGPU_HELLO_FIELD_FEATURES = 4,
	VGPU_HELLO_FIELD_MAX_CHANNELS = 8,
	/* Of a device. */
	VGPU_HELLO_FIELD_DEVICE_VERSION = 12,
	VGPU_HELLO_DEVICE_BYTES = 16,
	/* Of the mediator. */
	VGPU_HELLO_FIELD_MAX_OUTSTANDING = 12,
	VGPU_HELLO_FIELD_WINDOW_KIB = 16,
	VGPU_HELLO_FIELD_RESERVED = 20,
	VGPU_HELLO_MEDIATOR_BYTES = 24,
};

/* In the payload of BUSY, u32 each. */
enum vgpu_busy_field {
	VGPU_BUSY_FIELD_REASON = 0, /* enum vgpu_busy_reason */
	VGPU_BUSY_FIELD_RETRY_AFTER_US = 4,
	VGPU_BUSY_BYTES = 8,
};

#endif
