"""What an author wrote beside a declaration: a string below it, or a comment behind it."""

from __future__ import annotations

import ast
import inspect
import io
import sys
import tokenize

__all__ = ["Notes", "class_text"]


def class_text(cls: type) -> str:
    """The class's own docstring without its indentation, "" when it has none."""
    return inspect.cleandoc(cls.__dict__.get("__doc__") or "")


class Notes:
    """The notes of classes; each source file is read once."""

    def __init__(self) -> None:
        self._sources: dict[str, tuple[ast.Module, dict[int, str]]] = {}

    def of(self, cls: type) -> dict[str, str]:
        """For each attribute of ``cls``, its bases included, what stands below or behind it."""
        notes: dict[str, str] = {}
        for base in reversed(cls.__mro__):
            if base.__module__ != "builtins":
                notes.update(self._own(base))
        return notes

    def _own(self, cls: type) -> dict[str, str]:
        tree, comments = self._source(cls.__module__)
        body = _body(tree, cls.__qualname__.split("."))
        notes: dict[str, str] = {}
        for index, node in enumerate(body):
            name = _target(node)
            if name is None:
                continue
            following = body[index + 1] if index + 1 < len(body) else None
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                notes[name] = inspect.cleandoc(str(following.value.value))
            elif node.end_lineno in comments:
                notes[name] = comments[node.end_lineno]
        return notes

    def _source(self, module: str) -> tuple[ast.Module, dict[int, str]]:
        """The parsed source of a module and its comments; empty when there is none to read."""
        if module not in self._sources:
            file = getattr(sys.modules.get(module), "__file__", None)
            text = ""
            if file is not None:
                try:
                    with tokenize.open(file) as source:
                        text = source.read()
                except (OSError, SyntaxError, ValueError):
                    text = ""
            self._sources[module] = ast.parse(text), _comments(text)
        return self._sources[module]


def _body(tree: ast.Module, path: list[str]) -> list[ast.stmt]:
    """The statements of the class at the dotted ``path``; none when it is made otherwise."""
    body = tree.body
    for name in path:
        found = [node for node in body if isinstance(node, ast.ClassDef) and node.name == name]
        if not found:
            return []
        body = found[-1].body
    return body


def _target(node: ast.stmt) -> str | None:
    targets = node.targets if isinstance(node, ast.Assign) else []
    if isinstance(node, ast.AnnAssign):
        targets = [node.target]
    if len(targets) == 1 and isinstance(targets[0], ast.Name):
        return targets[0].id
    return None


def _comments(text: str) -> dict[int, str]:
    """Comments by line; directives for tools are none."""
    found = {}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        comment = token.string.lstrip("# ").strip()
        if token.type == tokenize.COMMENT and not comment.startswith(("noqa", "type:", "pragma")):
            found[token.start[0]] = comment
    return found
