"""YAML that remembers on which line each key stands, with ``${NAME}`` filled in."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from nightshard.core.errors import UserError

KeyPath = tuple[str | int, ...]

_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")


@dataclass(frozen=True, slots=True)
class MarkedDocument:
    """A YAML mapping and where its parts stand.

    Attributes:
        source: how the file is named in sentences.
        value: the document, variables filled in.
        lines: 1-based line of each key path; the empty path is the document itself.
    """

    source: str
    value: dict[str, Any]
    lines: Mapping[KeyPath, int]

    def line(self, path: KeyPath) -> int:
        """Return the line of a key, or of the nearest enclosing key that the file has."""
        while path not in self.lines:
            path = path[:-1]
        return self.lines[path]

    def error(self, path: KeyPath, what: str) -> UserError:
        """Build the one sentence that names file and line."""
        return UserError(f"{self.source}, line {self.line(path)}: {what}")


def parse_marked(text: str, source: str, environ: Mapping[str, str]) -> MarkedDocument:
    """Read one YAML document whose top level is a mapping.

    ``${NAME}`` in any string value is replaced by that variable of ``environ``, and
    ``${NAME:-default}`` by the default where the variable is not set or empty.

    Raises:
        UserError: not YAML, not a mapping, a key given twice, or a variable that is not set.
    """
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if not isinstance(root, yaml.MappingNode):
            raise UserError(f"{source}, line 1: expected keys and values, as in 'title: …'.")
        lines: dict[KeyPath, int] = {}
        _Walk(source, environ, lines, set()).visit(root, ())
        value = loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        problem = " ".join((error.problem or str(error)).split())
        raise UserError(f"{source}, line {line}: not valid YAML ({problem}).") from None
    except (yaml.YAMLError, ValueError) as error:
        problem = " ".join(str(error).split())
        raise UserError(f"{source}, line 1: not valid YAML ({problem}).") from None
    return MarkedDocument(source, value, lines)


@dataclass(frozen=True, slots=True)
class _Walk:
    source: str
    environ: Mapping[str, str]
    lines: dict[KeyPath, int]
    seen: set[int]  # an alias leads to a node again; it must not be filled in twice

    def visit(self, node: yaml.Node, path: KeyPath) -> None:
        self.lines.setdefault(path, node.start_mark.line + 1)
        if id(node) in self.seen:
            return
        self.seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            self._mapping(node, path)
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.visit(item, (*path, index))
        elif isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:str":
            node.value = _VARIABLE.sub(lambda match: self._fill(match, node), node.value)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> None:
        keys: set[str] = set()
        for key_node, value_node in node.value:
            key = str(key_node.value)
            line = key_node.start_mark.line + 1
            if key in keys:
                raise UserError(f"{self.source}, line {line}: {key} is given twice; keep one.")
            keys.add(key)
            self.lines[*path, key] = line
            self.visit(value_node, (*path, key))

    def _fill(self, match: re.Match[str], node: yaml.ScalarNode) -> str:
        value = self.environ.get(match["name"], "")
        if value:
            return value
        if match["default"] is not None:
            return match["default"]
        raise UserError(
            f"{self.source}, line {node.start_mark.line + 1}: the variable {match['name']} is not "
            f"set; set it in the environment or write ${{{match['name']}:-default}}."
        )
