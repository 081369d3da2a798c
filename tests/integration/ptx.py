# SPDX-License-Identifier: MIT
"""Runs PTX without a GPU, slowly: enough of it for the project's own kernels.

A kernel is translated into a Python generator per thread, whose basic blocks are
the branches of one loop; it yields at barriers. Threads of a block run in turns from
barrier to barrier, blocks one after another. Memory is a dictionary of 32-bit words, so
that reading what nobody has written is an error, as is every instruction that is not
known here. Numbers in float32 must be exact in it.
"""

import itertools
import re
import struct

M32 = 0xFFFFFFFF
M64 = 0xFFFFFFFFFFFFFFFF


class PtxError(Exception):
    """The kernel did something that no GPU would forgive, or that is not known here."""


def bits(value):
    """The word in memory that holds this value."""
    return struct.unpack("<I", struct.pack("<f", value))[0] if isinstance(value, float) else value


def _float(value):
    return value if isinstance(value, float) else struct.unpack("<f", struct.pack("<I", value))[0]


def _exact(value):
    if struct.unpack("<f", struct.pack("<f", value))[0] != value:
        raise PtxError(f"{value} is not exact in float32")
    return value


class Memory:
    """Words by address; addresses under 4096 fault, as does a wrong alignment."""

    def __init__(self, words=()):
        self.words = dict(words)

    def _check(self, address, alignment):
        if address < 4096 or address % alignment:
            raise PtxError(f"illegal address {address:#x}")

    def read_word(self, address, alignment=4):
        self._check(address, alignment)
        try:
            return self.words[address]
        except KeyError:
            raise PtxError(f"{address:#x} is read before it is written") from None

    def write_word(self, address, value, alignment=4):
        self._check(address, alignment)
        self.words[address] = value

    def read_u64(self, address):
        low, high = self.read_word(address, 8), self.read_word(address + 4)
        return bits(low) | bits(high) << 32

    def write_u64(self, address, value):
        self.write_word(address, value & M32, 8)
        self.write_word(address + 4, value >> 32)


_TYPES = {"u32": M32, "s32": M32, "b32": M32, "u64": M64, "s64": M64, "b64": M64}
_COMPARE = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_BITWISE = {"and": "&", "or": "|", "xor": "^"}


class _Function:
    """The text of one .entry or .func, translated."""

    def __init__(self, name, params, result, body, module):
        self.name = name
        self.params = params
        self.result = result
        self.module = module
        self.shared = {}
        self.source = self._translate(body)
        scope = {
            "bits": bits,
            "to_float": _float,
            "exact": _exact,
            **{f"call_{f.name}": f.code for f in module.values() if f.result},
        }
        exec(compile(self.source, f"<{name}>", "exec"), scope)  # the kernel's own text
        self.code = scope[name]

    # -- operands

    def _value(self, text):
        text = text.strip()
        if text.startswith("0f"):
            return repr(struct.unpack(">f", bytes.fromhex(text[2:]))[0])
        if re.fullmatch(r"-?(0x[0-9a-fA-F]+|\d+)", text):
            return str(int(text, 0))
        if re.fullmatch(r"%(tid|ctaid|ntid|nctaid)\.[xyz]", text):
            return text[1:].replace(".", "_")
        if text in self.shared:
            return str(self.shared[text])
        if re.fullmatch(r"%\w+", text):
            return "r_" + text[1:]
        raise PtxError(f"{self.name}: operand {text}")

    def _address(self, text):
        match = re.fullmatch(r"\[([%\w]+)(?:\+(\d+))?\]", text.strip())
        if not match:
            raise PtxError(f"{self.name}: address {text}")
        if match[1] in self.params:
            return f"p_{match[1]}"
        return f"({self._value(match[1])}) + {match[2] or 0}"

    @staticmethod
    def _operands(text):
        pattern = r"\s*(\{[^}]*\}|\[[^]]*\]|\([^)]*\)|[^,\s][^,]*)"
        return [t.strip() for t in re.findall(pattern, text)]

    # -- instructions

    def _memory(self, parts, ops):
        space = next(p for p in parts if p in ("global", "shared", "param"))
        type_ = parts[-1]
        vector = "v4" in parts
        width = 16 if vector else 8 if type_.endswith("64") else 4
        memory = "shared_memory" if space == "shared" else "memory"
        load = parts[0] == "ld"
        registers, address = (ops[0], ops[1]) if load else (ops[1], ops[0])
        if space == "param":
            return [f"{self._value(registers)} = {self._address(address)}"]
        address = self._address(address)
        if type_.endswith("64"):
            if load:
                return [f"{self._value(registers)} = {memory}.read_u64({address})"]
            return [f"{memory}.write_u64({address}, {self._value(registers)})"]
        convert = "to_float" if type_ == "f32" else "bits"
        lines = []
        for i, register in enumerate(registers.strip("{}").split(",")):
            alignment = width if i == 0 else 4
            value = self._value(register)
            if load:
                word = f"{memory}.read_word({address} + {4 * i}, {alignment})"
                lines.append(f"{value} = {convert}({word})")
            else:
                lines.append(f"{memory}.write_word({address} + {4 * i}, {value}, {alignment})")
        return lines

    def _arithmetic(self, parts, ops):
        name, type_ = parts[0], parts[-1]
        d, *v = [self._value(o) for o in ops]
        mask = _TYPES.get(type_)
        if type_ == "f32" and name == "fma":
            return [f"{d} = exact({v[0]} * {v[1]} + {v[2]})"]
        if name == "mov" or name == "cvta":
            return [f"{d} = {v[0]}"]
        if name == "setp":
            return [f"{d} = {v[0]} {_COMPARE[parts[1]]} {v[1]}"]
        if name == "or" and type_ == "pred":
            return [f"{d} = {v[0]} or {v[1]}"]
        if parts == ["cvt", "rn", "f32", "s32"]:
            return [f"{d} = exact(float(({v[0]} ^ 0x80000000) - 0x80000000))"]
        if parts == ["cvt", "rzi", "s64", "f32"]:
            return [f"{d} = int({v[0]}) & {M64}"]
        if parts == ["cvt", "u64", "u32"]:
            return [f"{d} = {v[0]}"]
        if parts == ["mul", "wide", "u32"]:
            return [f"{d} = {v[0]} * {v[1]}"]
        if mask is None:
            raise PtxError(f"{self.name}: {'.'.join(parts)}")
        expression = {
            "add": "{0} + {1}",
            "sub": "{0} - {1}",
            "mul": "{0} * {1}",
            "mad": "{0} * {1} + {2}",
            "rem": "{0} % {1}",
            "div": "{0} // {1}",
            "shl": "{0} << {1}",
            "shr": "{0} >> {1}",
        }.get(name)
        if name in _BITWISE:
            expression = "{0} " + _BITWISE[name] + " {1}"
        signed_is_different = name in ("rem", "div", "shr") and type_[0] == "s"
        if expression is None or signed_is_different or ("mul" in parts[0] and "lo" not in parts):
            raise PtxError(f"{self.name}: {'.'.join(parts)}")
        return [f"{d} = ({expression.format(*v)}) & {mask}"]

    def _instruction(self, text, blocks):
        opcode, _, rest = text.partition(" ")
        parts = opcode.split(".")
        ops = self._operands(rest)
        if parts[0] == "bra":
            return [f"pc = {blocks[ops[0]]}", "continue"]
        if parts[0] == "ret":
            return ["return" + (f" r_{self.result}" if self.result else "")]
        if opcode == "bar.sync":
            return ["yield"]
        if parts[0] == "call":
            arguments = ", ".join(self._value(a) for a in ops[2].strip("()").split(","))
            return [f"{self._value(ops[0].strip('()'))} = call_{ops[1]}({arguments})"]
        if opcode == "red.global.add.u64":
            at = self._address(ops[0])
            total = f"(memory.read_u64({at}) + {self._value(ops[1])}) & {M64}"
            return [f"memory.write_u64({at}, {total})"]
        if parts[0] in ("ld", "st"):
            return self._memory(parts, ops)
        return self._arithmetic(parts, ops)

    def _translate(self, body):
        body = re.sub(r"(\w+):", r";\1:;", body)
        statements = [s.strip() for s in body.split(";") if s.strip()]
        offset = 0
        code = []
        for statement in statements:
            if statement.startswith(".shared"):
                match = re.fullmatch(r"\.shared \.align (\d+) \.b8 (\w+)\[(\d+)\]", statement)
                offset = -(-offset // int(match[1])) * int(match[1])
                # From 4096 on, as in global memory: 0 is nobody's address.
                self.shared[match[2]] = 4096 + offset
                offset += int(match[3])
            elif not statement.startswith(".reg"):
                code.append(statement)
        blocks = {"": 0}
        for statement in code:
            if statement.endswith(":"):
                blocks[statement[:-1]] = len(blocks)
        arguments = [f"r_{p}" for p in self.params] if self.result else [
            *(f"p_{p}" for p in self.params), "memory", "shared_memory",
            *(f"{n}_{axis}" for n in ("ctaid", "tid") for axis in "xyz"),
        ]
        lines = [f"def {self.name}({', '.join(arguments)}):", "  pc = 0", "  while True:"]
        lines.append("    if pc == 0:")
        for statement in code:
            if statement.endswith(":"):
                block = blocks[statement[:-1]]
                lines += [f"      pc = {block}", f"    if pc == {block}:"]
                continue
            guard = re.match(r"@(!?)(%\w+)\s+", statement)
            indent = "      "
            if guard:
                lines.append(f"      if {'not ' if guard[1] else ''}{self._value(guard[2])}:")
                indent = "        "
                statement = statement[guard.end() :]
            statement = re.sub(r"\s+", " ", statement)
            lines += [indent + line for line in self._instruction(statement, blocks)]
        lines.append("      raise RuntimeError('ran off the end')")
        if not self.result:
            lines.append("    yield")  # a generator even without a barrier
        return "\n".join(lines) + "\n"


def load(text):
    """The functions of a PTX module by name."""
    text = re.sub(r"//[^\n]*", "", text)
    module = {}
    pattern = re.compile(
        r"(?:\.visible \.entry|\.func \(\.reg \.b32 %(?P<result>\w+)\)) (?P<name>\w+)"
        r"\((?P<params>[^)]*)\)[^{]*\{(?P<body>(?:[^{}]|\{[^{}]*\})*)\}"
    )
    for match in pattern.finditer(text):
        params = re.findall(r"%?(\w+)\s*(?:,|$)", match["params"].strip())
        name, result = match["name"], match["result"]
        module[name] = _Function(name, params, result, match["body"], module)
    return module


def launch(kernel, grid, block, params, memory):
    """Runs every thread of every block to its end."""
    for z, y, x in itertools.product(range(grid[2]), range(grid[1]), range(grid[0])):
        shared = Memory()
        threads = [
            kernel.code(*params, memory, shared, x, y, z, tx, ty, tz)
            for tz, ty, tx in itertools.product(range(block[2]), range(block[1]), range(block[0]))
        ]
        while threads:
            waiting = []
            for thread in threads:
                for _ in thread:
                    waiting.append(thread)
                    break
            if waiting and len(waiting) != len(threads):
                raise PtxError(f"{kernel.name}: some threads ended while others wait at a barrier")
            threads = waiting
