"""A table of the case file against its pydantic model; the first problem becomes one line, in our words."""

from __future__ import annotations

import difflib
import re

from pydantic import BaseModel, ValidationError

from hpcmsm.errors import ConfigError

REWORDED = {
    "model_type": "must be a table",
    "dict_type": "must be a table",
    "list_type": "must be a list",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "string_type": "must be a text",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
}


def validate(model: type[BaseModel], tree: dict, name: str, prefix: str = "") -> BaseModel:
    """Check a table against a pydantic model; the first problem becomes a one-line ConfigError."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        # A misspelt key explains the missing one beside it, so it comes first.
        problems = sorted(error.errors(), key=lambda problem: not _is_unknown_key(problem))
        raise ConfigError(_one_line(model, problems[0], name, prefix)) from None


def _one_line(model: type[BaseModel], problem: dict, name: str, prefix: str) -> str:
    location = [part for part in problem["loc"] if not _is_type_tag(part)]
    key = prefix + ".".join(str(part) for part in location)
    if _is_unknown_key(problem):
        stem, last = key[: len(key) - len(str(location[-1]))], str(location[-1])
        known = _choices(problem) or _known_keys(model, location[:-1])
        advice = closest(last, known, stem) or f"known keys are {', '.join(known)}"
        return f"unknown key '{key}' ({name}); {advice}"
    if problem["type"] == "missing":
        return f"{key} must be given, got nothing ({name}); add it to the case file"
    rule = _rule(problem)
    if problem["type"] == "value_error" and (not location or rule.startswith(f"{key}.")):
        return f"{rule} ({name}); change one of them"
    value = problem.get("input")
    shown = f", got {value!r}" if not isinstance(value, (dict, BaseModel)) and ", got " not in rule else ""
    advice = closest(value, _choices(problem)) or "correct the value"
    return f"{key} {rule[0].lower() + rule[1:]}{shown} ({name}); {advice}"


def _rule(problem: dict) -> str:
    """What a value must be, in our words where pydantic's would puzzle a reader."""
    if problem["loc"][-1:] == ("str",):  # the first branch of a union with numbers
        return "must be a finite number or a text"
    if problem["type"] in REWORDED:
        return REWORDED[problem["type"]].format(**problem.get("ctx", {}))
    rule = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return rule.replace("should be", "must be")


def _is_unknown_key(problem: dict) -> bool:
    return problem["type"] == "extra_forbidden" or problem["loc"][-1:] == ("[key]",)


def _choices(problem: dict) -> list[str]:
    """The texts among which a value or key must be, if it must."""
    return re.findall("'([^']*)'", problem["ctx"]["expected"]) if problem["type"] == "literal_error" else []


def closest(given, known: list[str], stem: str = "", cutoff: float = 0.6) -> str | None:
    """ "did you mean ...?" for the known name that is most like the given one, or None."""
    close = difflib.get_close_matches(given, known, 1, cutoff) if isinstance(given, str) else None
    return f"did you mean '{stem}{close[0]}'?" if close else None


def _is_type_tag(part) -> bool:
    """Whether a part of a pydantic location names a branch of a union or of a key, not a key."""
    return isinstance(part, str) and (
        part in ("str", "float", "int", "bool", "[key]", "constrained-int") or "(" in part or "[" in part
    )


def _known_keys(model: type[BaseModel], path: list) -> list[str]:
    """Keys of the table at a path below a model, looking through lists and mappings."""
    for part in path:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        inner = [annotation, *getattr(annotation, "__args__", ())] if annotation else [model]
        for candidate in inner:
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                model = candidate
    return list(model.model_fields)
