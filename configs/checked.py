"""Frozen dataclasses that check themselves: types, choices and typos, with the field named.

`Checked.__post_init__` converts each field to its annotated type or raises ConfigError, then calls
`check()` for what a type cannot say. `override` changes a tree of them by dotted names; `to_dict`
and `from_dict` carry it through JSON.
"""

import ast
import dataclasses
import difflib
import functools
import re
import reprlib
import sys
import types
import typing
from collections.abc import Callable, Collection, Mapping
from contextvars import ContextVar
from typing import Any, Literal, Self, TypeGuard, TypeVar, Union


class Text(str):
    """A value from the command line: text where the field wants text, else a Python literal."""

    def literal(self) -> Any:
        words = {"true": "True", "false": "False", "none": "None"}
        try:
            return ast.literal_eval(words.get(self.strip().lower(), self.strip()))
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            return str(self)


CALLABLE = "callable:"  # how JSON names an object of the user's own, which it cannot hold
# Beyond these a value is a mistake, and one list of a file could hold millions.
MOST_TEXTS = 100_000  # of a list or a dict: classes, folders
MOST_ITEMS = 1000  # of any other list
MOST_CHARACTERS = 2**16
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # in no name or path; a terminal would obey some
_short = reprlib.Repr()
_short.maxlevel, _short.maxstring, _short.maxother = 3, 120, 120
_short.maxtuple = _short.maxlist = _short.maxdict = 10


class ConfigError(ValueError):
    """A setting that cannot be; the message names the field, expected and found."""


class UnusedError(ConfigError):
    """A setting that other settings make ineffective.

    field: its name as the class that checks it sees it, dotted.
    """

    def __init__(self, field: str, message: str):
        super().__init__(message)
        self.field = field


# Whether a config is being read that was checked when it was made, see `from_dict`.
_is_saved: ContextVar[bool] = ContextVar("is_saved", default=False)
# Whether something stands in for objects of the user's own, see `completed`.
_stands_in: ContextVar[bool] = ContextVar("stands_in", default=False)


def shown(value: object) -> str:
    """A value as a message shows it: `repr`, on one line and without the bulk of a large one."""
    return _short.repr(value)


@dataclasses.dataclass(frozen=True)
class Checked:
    """Base of every config dataclass.

    GONE: settings that there once were, and the value at which they did nothing.
    """

    GONE: typing.ClassVar[dict[str, Any]] = {}

    def __new__(cls, *args: object, **kwargs: object) -> Self:
        self = super().__new__(cls)
        names = [field.name for field in dataclasses.fields(cls)]
        self.__dict__["given"] = frozenset(names[: len(args)]) | kwargs.keys()
        return self

    @property
    def given(self) -> frozenset[str]:
        """Names of the fields that were given a value; the others have their defaults."""
        return self.__dict__["given"]

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            name = f"{type(self).__name__}.{field.name}"
            value = convert(getattr(self, field.name), hints[field.name], name)
            object.__setattr__(self, field.name, value)
        self.check()

    def check(self) -> None:
        """Raises ConfigError for values that are of the right type and still impossible."""

    def require(self, field: str, is_met: bool, expected: str) -> None:
        if not is_met:
            name = f"{type(self).__name__}.{field}"
            raise ConfigError(f"{name}: expected {expected}, found {shown(getattr(self, field))}")

    def require_range(self, fields: str, least: float, most: float, above: bool = False) -> None:
        """Raises ConfigError for a number, or one of a list, not from `least` to `most`.

        fields: one name or several, "height width"; None passes. above: `least` itself is refused.
        most: generous; what lies beyond it can only be a mistake.
        """
        hints = typing.get_type_hints(type(self))
        for field in fields.split():
            found = getattr(self, field)
            values = found if isinstance(found, tuple) else [] if found is None else [found]
            is_met = all(
                least <= value <= most and (value > least or not above) for value in values
            )
            expected = f"above {least}, up to {most}" if above else f"{least} to {most}"
            or_none = "None or " if type(None) in typing.get_args(hints[field]) else ""
            self.require(field, is_met, or_none + expected)

    def require_used(self, field: str, is_used: bool, where: str) -> None:
        """Raises UnusedError for another than the default value, which does nothing but `where`.

        field: may be one of a group, "augment.zoom", that settings outside of it decide on.
        """
        *groups, name = field.split(".")
        owner = functools.reduce(getattr, groups, self)
        own = type(owner).__dataclass_fields__[name]
        default = own.default
        if own.default_factory is not dataclasses.MISSING:
            default = own.default_factory()
        found = getattr(owner, name)
        if not is_used and found != default:
            expected = f"expected the default, {default!r}, unless {where}"
            raise UnusedError(
                field, f"{type(self).__name__}.{field}: {expected}, found {shown(found)}"
            )


Group = TypeVar("Group", bound=Checked)


def convert(value: Any, hint: Any, name: str) -> Any:
    """Returns `value` as the annotated type `hint`. Raises ConfigError naming the field `name`."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(value, Text):
        is_name = hint == str | None and value.lower() != "none"
        is_text = hint is str or is_name or (args == (str, ...) and value[:1] not in "([")
        value = str(value) if is_text else value.literal()
    if origin in (Union, types.UnionType):
        return _convert_union(value, args, hint, name)
    if origin is tuple:
        if isinstance(value, str):  # --set data.classes=person,head
            value = [part.strip() for part in value.split(",") if part.strip()]
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            value = [value]
        if isinstance(value, (list, tuple)):
            _require_few(value, args[0], name)
            hints = [args[0]] * len(value) if args[-1] is Ellipsis else args
            if len(hints) == len(value):
                return tuple(
                    convert(v, h, f"{name}[{i}]")
                    for i, (v, h) in enumerate(zip(value, hints, strict=True))
                )
    elif origin is dict:
        if isinstance(value, Mapping):
            _require_few(value, args[0], name)
            return {
                convert(k, args[0], name): convert(v, args[1], f"{name}[{k!r}]")
                for k, v in value.items()
            }
    elif origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in args):
            return value
    elif origin is Callable or hint is Callable:
        if _is_own(value) and _stands_in.get():
            return _part_of_ones_own
        if _is_own(value):
            raise ConfigError(
                f"{name}: the saved config names an object of your own ({value[len(CALLABLE) :]}), "
                "which a file cannot hold; give the config that defines it with --config"
            )
        if callable(value):
            return value
    elif _is_group(hint):
        if isinstance(value, hint):
            return value
        if isinstance(value, Mapping):
            return _from_mapping(hint, value, name)
    elif hint is float:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if is_number and abs(value) <= sys.float_info.max:  # which nan is not
            return float(value)
    elif hint is str and isinstance(value, str):
        if CONTROL.search(value) or len(value) > MOST_CHARACTERS:
            expected = f"at most {MOST_CHARACTERS} characters, none of them a control character"
            raise ConfigError(f"{name}: expected {expected}, found {shown(value)}")
        return value
    elif isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise ConfigError(f"{name}: expected {describe(hint)}, found {shown(value)}")


def _require_few(values: Collection, hint: Any, name: str) -> None:
    most = MOST_TEXTS if hint is str else MOST_ITEMS
    if len(values) > most:
        raise ConfigError(f"{name}: expected at most {most} values, found {len(values)}")


def _is_own(value: Any) -> bool:
    """Whether JSON names an object of the user's own here."""
    return isinstance(value, str) and value.startswith(CALLABLE)


def _is_group(hint: object) -> TypeGuard[type[Checked]]:
    return isinstance(hint, type) and issubclass(hint, Checked)


def _convert_union(value: Any, args: tuple, hint: Any, name: str) -> Any:
    """A union is None, a plain type, or one of several dataclasses chosen by their `kind`."""
    if value is None and type(None) in args:
        return None
    kinds = {arg.kind: arg for arg in args if _is_group(arg) and hasattr(arg, "kind")}
    if isinstance(value, str) and value in kinds:
        return kinds[value]()
    if isinstance(value, Mapping) and value.get("kind") in list(kinds):  # may be unhashable
        rest = {key: item for key, item in value.items() if key != "kind"}
        return _from_mapping(kinds[value["kind"]], rest, name)
    for arg in args:
        try:
            return convert(value, arg, name)
        except ConfigError:
            if _is_own(value) and arg is Callable:
                raise
    raise ConfigError(f"{name}: expected {describe(hint)}, found {shown(value)}")


def describe(hint: Any) -> str:
    """A type annotation in words, for an error message."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(arg) for arg in args)
    if origin is Literal:
        return "one of " + ", ".join(repr(arg) for arg in args)
    if origin is tuple:
        if args[-1] is Ellipsis:
            return f"a list of ({describe(args[0])})"
        return "(" + ", ".join(describe(arg) for arg in args) + ")"
    if origin is dict:
        return f"a dict of {describe(args[0])} to {describe(args[1])}"
    if origin is Callable or hint is Callable:
        return "a callable of your own"
    if hint is type(None):
        return "None"
    if _is_group(hint):
        return repr(hint.kind) if hasattr(hint, "kind") else hint.__name__
    return {int: "a whole number", float: "a number", str: "a string", bool: "True or False"}[hint]


def override(config: Group, changes: Mapping[str, Any], prefix: str = "") -> Group:
    """Returns a copy of a config with dotted fields changed: {"train.epochs": 20}.

    A group's own value is set before its fields, so {"train.schedule": "step",
    "train.schedule.factor": 0.2} works in any order. A setting of `config` that the changes make
    ineffective becomes the default. Raises ConfigError for an unknown field, with the choices, and
    for a value that does not fit.
    """
    names = [field.name for field in dataclasses.fields(config)]
    for key in changes:
        head = key.split(".")[0]
        if head not in names:
            near = difflib.get_close_matches(head, names, 1)
            hint = f"did you mean {prefix + near[0]!r}? " if near else ""
            raise ConfigError(f"{prefix + head!r} is no setting; {hint}choices: {', '.join(names)}")
    values = {key: value for key, value in changes.items() if "." not in key}
    hints = typing.get_type_hints(type(config))
    groups: dict[str, dict[str, Any]] = {}
    for key, value in changes.items():
        if "." in key:
            head, rest = key.split(".", 1)
            groups.setdefault(head, {})[rest] = value
    for head, inner in groups.items():
        group = getattr(config, head)
        if head in values:
            group = convert(values[head], hints[head], prefix + head)
        if not isinstance(group, Checked):
            raise ConfigError(f"{prefix + head!r} has no fields of its own; found {group!r}")
        values[head] = override(group, inner, f"{prefix}{head}.")
    return _replace(config, values, prefix, changes)


def _replace(config: Group, values: dict[str, Any], prefix: str, changes: Collection[str]) -> Group:
    # Not dataclasses.replace, to which every field would be given.
    try:
        return _made(type(config), _given(config) | values, changes) if values else config
    except ConfigError as error:
        # Errors name the class ("Train.epochs"); the user wrote the dotted name ("train.epochs").
        message = str(error).replace(f"{type(config).__name__}.", prefix, 1)
        raise ConfigError(message) from None


def _given(config: Checked) -> dict[str, Any]:
    return {name: getattr(config, name) for name in config.given}


def _made(cls: type[Group], values: dict[str, Any], asked: Collection[str] = ()) -> Group:
    """cls(**values) without what does nothing beside the rest, unless it was `asked` for.

    asked: dotted names, of fields or whole groups.
    """
    try:
        return cls(**values)
    except UnusedError as error:
        unused = f"{error.field}."
        if any(unused.startswith(f"{name}.") or f"{name}.".startswith(unused) for name in asked):
            raise
        return _made(cls, _without(values, error.field), asked)


def _without(values: Mapping[str, Any], field: str) -> dict[str, Any]:
    """The values without that of a dotted field, which has its default then."""
    head, _, rest = field.partition(".")
    if not rest:
        return {name: value for name, value in values.items() if name != head}
    group = values[head]
    return {**values, head: _without(group if isinstance(group, Mapping) else _given(group), rest)}


def assignment(item: str) -> tuple[str, Text]:
    """'train.epochs=20' -> ('train.epochs', '20'); the field's type says what the text means.

    Raises ConfigError where there is no "=".
    """
    key, separator, text = item.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"--set: expected section.field=value, found {item!r}")
    return key.strip(), Text(text.strip())


def adopt(mine: Group, theirs: Checked) -> Group:
    """`mine`, with what was given in `theirs` wherever nothing was given in `mine`.

    Settings of `theirs` that `mine` makes ineffective are left out.
    """
    if type(mine) is not type(theirs):
        return mine
    values = _given(mine)
    for name in theirs.given:
        value = getattr(theirs, name)
        if name not in mine.given:
            values[name] = value
        elif isinstance(value, Checked):
            values[name] = adopt(values[name], value)
    return _made(type(mine), values, mine.given)


def to_dict(config: Any) -> Any:
    """A config as JSON-ready dicts and lists; an object of the user's own by its name."""
    if isinstance(config, Checked):
        kind = {"kind": config.kind} if hasattr(config, "kind") else {}
        fields = dataclasses.fields(config)
        return kind | {field.name: to_dict(getattr(config, field.name)) for field in fields}
    if isinstance(config, tuple):
        return [to_dict(item) for item in config]
    if isinstance(config, dict):
        return dict(config)
    if callable(config):
        where = getattr(config, "__module__", type(config).__module__)
        return f"{CALLABLE}{where}.{getattr(config, '__qualname__', type(config).__name__)}"
    return config


def from_dict(cls: type[Group], values: Any, name: str | None = None) -> Group:
    """The inverse of `to_dict`.

    values: what a file holds, maybe something else than a dict. name: what messages call the whole,
    by default the class ("Config.train.epochs: ...").
    Raises ConfigError for a field that `cls` does not have, that is missing, or does not fit. One
    that would do nothing becomes the default, which may have been another when it was saved, and
    one that is GONE is left out if it did nothing.
    """
    name = name or cls.__name__
    if not isinstance(values, Mapping):
        raise ConfigError(f"{name}: expected an object of settings, found {shown(values)}")
    token = _is_saved.set(True)
    try:
        return _from_mapping(cls, values, name)
    finally:
        _is_saved.reset(token)


def _from_mapping(cls: type[Group], values: Mapping[str, Any], name: str) -> Group:
    fields = dataclasses.fields(cls)
    names = [field.name for field in fields]
    if _is_saved.get():
        values = {k: v for k, v in values.items() if k not in cls.GONE or v != cls.GONE[k]}
    for key in values:
        if key not in names:
            word = key if isinstance(key, str) and key.isidentifier() else shown(key)
            raise ConfigError(f"{name}.{word[:80]} is no setting; choices: {', '.join(names)}")
    for field in fields:
        is_required = field.default is field.default_factory is dataclasses.MISSING
        if is_required and field.name not in values:
            raise ConfigError(f"{name}.{field.name}: expected a value, found none")
    try:
        return _made(cls, dict(values)) if _is_saved.get() else cls(**values)
    except ConfigError as error:
        raise ConfigError(str(error).replace(f"{cls.__name__}.", f"{name}.", 1)) from None


def completed(cls: type[Checked], saved: Any) -> dict[str, Any]:
    """What an earlier version saved by `to_dict`, as this one would; own objects by their names.

    Raises ConfigError as `from_dict` does, but for objects of the user's own.
    """

    def with_own(value: Any, saved: Any) -> Any:
        if _is_own(saved):
            return saved
        if isinstance(value, Mapping) and isinstance(saved, Mapping):
            return {k: with_own(v, saved.get(k)) for k, v in value.items()}
        if isinstance(value, list) and isinstance(saved, list):
            return [with_own(v, s) for v, s in zip(value, saved, strict=True)]
        return value

    token = _stands_in.set(True)
    try:
        return with_own(to_dict(from_dict(cls, saved)), saved)
    finally:
        _stands_in.reset(token)


def _part_of_ones_own() -> None:
    """Stands for what a file can only name."""


def differences(ours: Any, theirs: Any, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """(dotted name, our value, their value) wherever two results of `to_dict` differ."""
    if not (isinstance(ours, dict) and isinstance(theirs, dict)):
        return [] if ours == theirs else [(prefix, ours, theirs)]
    found = []
    for name in dict.fromkeys([*ours, *theirs]):
        dotted = f"{prefix}.{name}" if prefix else name
        found += differences(ours.get(name), theirs.get(name), dotted)
    return found
