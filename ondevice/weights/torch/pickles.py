"""Read a pickle without running anything in it.

A pickle is a program for a stack machine, and Python's own machine calls whatever the program
names. This one knows only how to build texts, numbers and plain containers. A name is looked
up in a table given by the caller; what is not in it, and all that is made with it, stays
``Opaque``. Format: the docstrings of Python's ``pickletools``.
"""

from __future__ import annotations

import operator
import pickletools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from ondevice.errors import printable

MAX_STEPS = 2_000_000  # a training checkpoint of 1,000 parameters takes 100,000
MAX_DEPTH = 100  # of containers within containers

Globals = Mapping[str, Any]

# Names that no training script saves and that harm whoever runs the pickle. Nothing here is
# ever run, so what this misses does no harm either; a file that has one is not to be trusted.
_HARMFUL = re.compile(
    r"(os|posix|nt)\.(system|popen|exec|spawn|posix_spawn|fork|kill|remove|unlink|rmdir|rename)"
    r"|(subprocess|commands|pty|runpy|importlib|imp|shutil|socket|ctypes|webbrowser)\."
    r"|(builtins|__builtin__)\.(eval|exec|execfile|compile|open|__import__|breakpoint)$"
)


@dataclass(frozen=True, slots=True)
class Opaque:
    """Stands for an object that has not been made, of a class or function called ``name``."""

    name: str


class OddKey:
    """Stands for the key of a dict that is neither a text nor a small number.

    Its own hash is that of its address: a stranger's could be made to collide or never end.
    """

    def __str__(self) -> str:
        return "(the key of a dict, neither a text nor a small number)"


class PickleError(ValueError):
    """A pickle is malformed, or asks for more than plain data."""


def _no_persistent(_: Any) -> NoReturn:
    raise PickleError("it refers to data outside of it")


def read_pickle(
    file: Any, known: Globals, load_persistent: Callable[[Any], Any] = _no_persistent
) -> Any:
    """The value of the pickle that ``file`` (with read, readline, tell) is at.

    ``known`` has what its names ("module.attribute") stand for, functions if they may be
    called; all others become Opaque, but those that could only do harm are refused, together.
    ``load_persistent`` gives the objects that are kept outside. Raises PickleError.
    """
    machine = _Machine(known, load_persistent)
    position = 0
    try:
        for count, (opcode, arg, at) in enumerate(pickletools.genops(file)):
            position = at or 0
            if count > MAX_STEPS:
                raise PickleError(f"it takes more than {MAX_STEPS} steps to build")
            if opcode.name not in _STEPS:
                raise PickleError(f"instruction {opcode.name} does not belong in a checkpoint")
            _STEPS[opcode.name](machine, arg)
        value = machine.stack.pop()
        _check_depth(value)
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        machine.check_names()
        detail = str(error) if isinstance(error, PickleError) else "it is malformed"
        raise PickleError(f"{detail} (byte {position} of the pickle)") from error
    machine.check_names()
    return value


class _Machine:
    def __init__(self, known: Globals, load_persistent: Callable[[Any], Any]) -> None:
        self.known = known
        self.load_persistent = load_persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.harmful: set[str] = set()

    def check_names(self) -> None:
        if self.harmful:
            names = ", ".join(printable(name, 80) for name in sorted(self.harmful)[:12])
            raise PickleError(
                f"it would run {names}, which no weights need: nothing of it was run; do not "
                "open it with anything that does"
            )

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self, count: int) -> list[Any]:
        if not 0 <= count <= len(self.stack):
            raise IndexError
        start = len(self.stack) - count
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def pop_to_mark(self) -> list[Any]:
        return self.pop(len(self.stack) - self.marks.pop())

    def put(self, index: int) -> None:
        if not 0 <= index <= MAX_STEPS:  # so that hashes cannot be made to collide
            raise PickleError(f"memo number {printable(str(index), 20)} is out of range")
        self.memo[index] = self.stack[-1]

    def find(self, name: str) -> None:
        if _HARMFUL.match(name):
            self.harmful.add(name)
        self.push(self.known.get(name, Opaque(name)))

    def call(self, function: Any, args: Any) -> None:
        if isinstance(function, Opaque):
            self.push(function)
        elif callable(function) and isinstance(args, tuple):
            self.push(function(*args))
        else:
            raise PickleError("it calls what is not a function")

    def extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target += values
        elif not isinstance(target, Opaque):
            raise PickleError("it appends to what is not a list")

    def set_items(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, dict):
            add_items(target, zip(values[::2], values[1::2], strict=True))
        elif not isinstance(target, Opaque):
            raise PickleError("it sets items of what is not a dict")

    def build(self) -> None:
        """Attributes of an object: those of an OrderedDict or of Opaque matter to nobody."""
        self.pop(1)
        if not isinstance(self.stack[-1], dict | Opaque):
            raise PickleError("it sets attributes of plain data")


def add_items(table: dict[Any, Any], items: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """``table`` with ``items``; a key that is neither text nor small number becomes an OddKey.

    Raises PickleError for a key that is there already.
    """
    for key, value in items:
        if not (type(key) is str or (type(key) is int and abs(key) < 2**32)):
            key = OddKey()
        if key in table:
            raise PickleError(f"{printable(str(key))} appears twice")
        table[key] = value
    return table


def _check_depth(root: Any) -> None:
    level, seen = [root], {id(root)}
    for _ in range(MAX_DEPTH):
        children = []
        for container in level:
            inside = container.values() if isinstance(container, dict) else container
            for child in inside if isinstance(container, dict | list | tuple) else ():
                if id(child) not in seen:
                    seen.add(id(child))
                    children.append(child)
        level = children
        if not level:
            return
    raise PickleError(f"its containers are nested more than {MAX_DEPTH} deep")


def _persistent(machine: _Machine, _: Any) -> None:
    machine.push(machine.load_persistent(machine.stack.pop()))


def _stack_global(machine: _Machine, _: Any) -> None:
    module, name = machine.pop(2)
    machine.find(f"{module}.{name}" if isinstance(module, str) else "?")


Step = Callable[[_Machine, Any], None]

_STEPS: dict[str, Step] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda m, arg: None),
    # Values that stand in the pickle.
    **dict.fromkeys(
        (
            *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"),
            *("FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING"),
            *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
            *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
        ),
        _Machine.push,
    ),
    "NONE": lambda m, arg: m.push(None),
    "NEWTRUE": lambda m, arg: m.push(True),
    "NEWFALSE": lambda m, arg: m.push(False),
    # Containers; sets become lists, so that nothing is ever hashed.
    "EMPTY_LIST": lambda m, arg: m.push([]),
    "EMPTY_SET": lambda m, arg: m.push([]),
    "EMPTY_DICT": lambda m, arg: m.push({}),
    "EMPTY_TUPLE": lambda m, arg: m.push(()),
    "TUPLE1": lambda m, arg: m.push(tuple(m.pop(1))),
    "TUPLE2": lambda m, arg: m.push(tuple(m.pop(2))),
    "TUPLE3": lambda m, arg: m.push(tuple(m.pop(3))),
    "TUPLE": lambda m, arg: m.push(tuple(m.pop_to_mark())),
    "FROZENSET": lambda m, arg: m.push(m.pop_to_mark()),
    "LIST": lambda m, arg: m.push(m.pop_to_mark()),
    "APPEND": lambda m, arg: m.extend(m.pop(1)),
    "APPENDS": lambda m, arg: m.extend(m.pop_to_mark()),
    "ADDITEMS": lambda m, arg: m.extend(m.pop_to_mark()),
    "SETITEM": lambda m, arg: m.set_items(m.pop(2)),
    "SETITEMS": lambda m, arg: m.set_items(m.pop_to_mark()),
    # The stack and the memo.
    "MARK": lambda m, arg: m.marks.append(len(m.stack)),
    "POP": lambda m, arg: operator.delitem(m.stack, -1),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda m, arg: m.push(m.memo[arg])),
    "MEMOIZE": lambda m, arg: m.put(len(m.memo)),
    # Names, and what is done with them.
    "GLOBAL": lambda m, arg: m.find(arg.replace(" ", ".", 1)),
    "STACK_GLOBAL": _stack_global,
    "REDUCE": lambda m, arg: m.call(*m.pop(2)),
    "NEWOBJ": lambda m, arg: m.call(*m.pop(2)),
    "NEWOBJ_EX": lambda m, arg: m.call(*m.pop(3)[:2]),
    "BUILD": lambda m, arg: m.build(),
    "BINPERSID": _persistent,
}
