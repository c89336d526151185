"""Frozen dataclasses that check themselves: types, ranges, choices and typos, with the field named.

`Checked.__post_init__` converts each field to its annotated type or raises ConfigError, holds it to
the rules beside the type (`Annotated[float, within(0, 1)]`), and calls `check()` for what holds
between fields. `override` changes a tree of them by dotted names; `to_dict`
and `from_dict` carry it through JSON.
"""

import ast
import contextlib
import dataclasses
import difflib
import functools
import reprlib
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Literal, NamedTuple, Self, TypeGuard, TypeVar, Union

from utils.names import CONTROL


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


class OwnName(str):
    """The name that a file has of an object of the user's own, in its place: see `completed`."""

    def __call__(self) -> None:
        raise AssertionError(f"{self} is a name alone")


_takes_names: ContextVar[bool] = ContextVar("takes_names", default=False)


def shown(value: object) -> str:
    """A value as a message shows it: `repr`, on one line and without the bulk of a large one."""
    return _short.repr(value)


def _unmet(name: str, expected: str, found: object) -> ConfigError:
    return ConfigError(f"{name}: expected {expected}, found {shown(found)}")


class Rule(NamedTuple):
    """What a value must meet beside its type, in `Annotated`, and the words for it; None passes."""

    expected: str
    is_met: Callable[[Any], bool]


def within(least: float, most: float, expected: str = "", above: bool = False) -> Rule:
    """The rule for a number, or each of a list, to be from `least` to `most`.

    most: generous; what lies beyond it can only be a mistake. above: `least` itself is refused.
    """

    def is_met(found: Any) -> bool:
        values = found if isinstance(found, tuple) else (found,)
        return all(least <= value <= most and (value > least or not above) for value in values)

    range_ = f"above {least}, up to {most}" if above else f"{least} to {most}"
    return Rule(expected or range_, is_met)


@dataclasses.dataclass(frozen=True)
class Checked:
    """Base of every config dataclass."""

    _hints: typing.ClassVar[dict[str, Any]]  # the fields' types
    _rules: typing.ClassVar[list[tuple[str, Rule]]]  # (field, rule beside its type)

    def __init_subclass__(cls) -> None:
        cls._hints, cls._rules = typing.get_type_hints(cls), []
        for field, hint in typing.get_type_hints(cls, include_extras=True).items():
            args = typing.get_args(hint)
            or_none = "None or " if type(None) in args else ""
            for part in (hint, *args):
                for rule in getattr(part, "__metadata__", ()):
                    cls._rules.append((field, rule._replace(expected=or_none + rule.expected)))

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
        for field in dataclasses.fields(self):
            name = f"{type(self).__name__}.{field.name}"
            value = convert(getattr(self, field.name), self._hints[field.name], name)
            object.__setattr__(self, field.name, value)
        for name, rule in self._rules:
            found = getattr(self, name)
            self.require(name, found is None or rule.is_met(found), rule.expected)
        self.check()

    def check(self) -> None:
        """Raises ConfigError for values that do not go together."""

    def require(self, field: str, is_met: bool, expected: str) -> None:
        if not is_met:
            raise _unmet(f"{type(self).__name__}.{field}", expected, getattr(self, field))

    def require_used(self, field: str, is_used: bool, where: str) -> None:
        """Raises UnusedError for another than the default value, which does nothing but `where`.

        field: may be one of a group, "augment.zoom", that settings outside of it decide on.
        """
        *groups, name = field.split(".")
        owner = functools.reduce(getattr, groups, self)
        default = type(owner).__dataclass_fields__[name].default
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
    if _is_own(value) and Callable in args:
        if _takes_names.get():
            return OwnName(value)
        raise ConfigError(
            f"{name}: the saved config names an object of your own ({value[len(CALLABLE) :]}), "
            "which a file cannot hold; give the config that defines it with --config"
        )
    if origin in (Union, types.UnionType):
        # None, a plain type, or one of several dataclasses chosen by their `kind`.
        kinds = {arg.kind: arg for arg in args if _is_group(arg) and hasattr(arg, "kind")}
        if isinstance(value, str) and value in kinds:
            return kinds[value]()
        if isinstance(value, Mapping) and value.get("kind") in list(kinds):  # may be unhashable
            rest = {key: item for key, item in value.items() if key != "kind"}
            return _from_mapping(kinds[value["kind"]], rest, name)
        for arg in args:
            with contextlib.suppress(ConfigError):
                return convert(value, arg, name)
    elif origin is tuple:
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
    elif hint is Callable:
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
            raise _unmet(name, expected, value)
        return value
    elif isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise _unmet(name, describe(hint), value)


def _require_few(values: Collection, hint: Any, name: str) -> None:
    most = MOST_TEXTS if hint is str else MOST_ITEMS
    if len(values) > most:
        raise ConfigError(f"{name}: expected at most {most} values, found {len(values)}")


def _is_own(value: Any) -> bool:
    """Whether JSON names an object of the user's own here."""
    return isinstance(value, str) and value.startswith(CALLABLE)


def _is_group(hint: object) -> TypeGuard[type[Checked]]:
    return isinstance(hint, type) and issubclass(hint, Checked)


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
    if hint is Callable:
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
    groups: dict[str, dict[str, Any]] = {}
    for key, value in changes.items():
        if "." in key:
            head, rest = key.split(".", 1)
            groups.setdefault(head, {})[rest] = value
    for head, inner in groups.items():
        group = getattr(config, head)
        if head in values:
            group = convert(values[head], config._hints[head], prefix + head)
        if not isinstance(group, Checked):
            raise ConfigError(f"{prefix + head!r} has no fields of its own; found {group!r}")
        values[head] = override(group, inner, f"{prefix}{head}.")
    if not values:
        return config
    with _dotted(type(config), prefix):
        # Not dataclasses.replace, to which every field would be given.
        return _made(type(config), _given(config) | values, changes)


@contextlib.contextmanager
def _dotted(cls: type[Checked], prefix: str) -> Iterator[None]:
    """Errors name the class ("Train.epochs"); the user wrote the dotted name ("train.epochs")."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(str(error).replace(f"{cls.__name__}.", prefix, 1)) from None


def _given(config: Checked) -> dict[str, Any]:
    return {name: getattr(config, name) for name in config.given}


def _made(cls: type[Group], values: dict[str, Any], asked: Collection[str]) -> Group:
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
    others = dict(values)
    group = others.pop(head)
    if rest:
        others[head] = _without(group if isinstance(group, Mapping) else _given(group), rest)
    return others


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
    if callable(config) and not isinstance(config, OwnName):
        where = getattr(config, "__module__", type(config).__module__)
        return f"{CALLABLE}{where}.{getattr(config, '__qualname__', type(config).__name__)}"
    return config


def from_dict(cls: type[Group], values: Any, name: str | None = None) -> Group:
    """The inverse of `to_dict`.

    values: what a file holds, maybe something else than a dict. name: what messages call the whole,
    by default the class ("Config.train.epochs: ...").
    Raises ConfigError for a field that `cls` does not have, that is missing, or does not fit.
    """
    name = name or cls.__name__
    if not isinstance(values, Mapping):
        raise _unmet(name, "an object of settings", values)
    return _from_mapping(cls, values, name)


def _from_mapping(cls: type[Group], values: Mapping[str, Any], name: str) -> Group:
    fields = dataclasses.fields(cls)
    names = [field.name for field in fields]
    for key in values:
        if key not in names:
            word = key if isinstance(key, str) and key.isidentifier() else shown(key)
            raise ConfigError(f"{name}.{word[:80]} is no setting; choices: {', '.join(names)}")
    for field in fields:
        is_required = field.default is field.default_factory is dataclasses.MISSING
        if is_required and field.name not in values:
            raise ConfigError(f"{name}.{field.name}: expected a value, found none")
    with _dotted(cls, f"{name}."):
        return cls(**values)


def completed(cls: type[Checked], saved: Any) -> dict[str, Any]:
    """What `to_dict` saved, checked, with objects of the user's own by their names.

    Raises ConfigError as `from_dict` does, but for objects of the user's own.
    """

    token = _takes_names.set(True)
    try:
        return to_dict(from_dict(cls, saved))
    finally:
        _takes_names.reset(token)


def differences(ours: Any, theirs: Any, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """(dotted name, our value, their value) wherever two results of `to_dict` differ."""
    if not (isinstance(ours, dict) and isinstance(theirs, dict)):
        return [] if ours == theirs else [(prefix, ours, theirs)]
    found = []
    for name in dict.fromkeys([*ours, *theirs]):
        dotted = f"{prefix}.{name}" if prefix else name
        found += differences(ours.get(name), theirs.get(name), dotted)
    return found
