"""Sources that decide labels changed without a new format, and runs went on with two kinds of them.

Whether results are the same after a change, this test cannot know; it asks whoever makes it.
"""

from __future__ import annotations

import ast
import hashlib
import io
import tokenize
from pathlib import Path

import spoco_zoo
from spoco_zoo.segment.plan import FORMAT

PACKAGE = Path(spoco_zoo.__file__).parent
ASKED = """{odd} decide labels and are others than they were.
If any image gets other labels than before, raise FORMAT in spoco_zoo/segment/plan.py.
Either way, put this in the place of KNOWN in tests/unit/segment/test_format.py:

{table}
"""
KNOWN = {
    "format": "11",
    "filled.py": "6a9ac75f8153",
    "intensities.py": "b4852dd872eb",
    "ngff/lost.py": "ada2ac256979",
    "ngff/reduce.py": "5e176d2e4c48",
    "ngff/rescale.py": "663509b71038",
    "nets/unet.py": "87ab44661cde",
    "outliers.py": "ba8e94db6ec4",
    "segment/blocks.py": "52bf48f15838",
    "segment/cluster/__init__.py": "d7559b2ae8ed",
    "segment/cluster/consistency.py": "4a0da121b943",
    "segment/cluster/density.py": "e66723d274f9",
    "segment/cluster/meanshift.py": "1ca5254b71e1",
    "segment/cluster/portable.py": "0b7b1508b8a6",
    "segment/cluster/regions.py": "36852fbec2fd",
    "segment/cluster/scores.py": "ae34aa142cba",
    "segment/cluster/tensor_field.py": "826f2cc059dc",
    "segment/embed.py": "e491622bd240",
    "segment/field.py": "b08ee3e80102",
    "segment/normalise.py": "fc8230e4eea3",
    "segment/output/final.py": "0af2543883a2",
    "segment/output/pyramid.py": "84005ebcd2ba",
    "segment/planes.py": "48fb34efd40b",
    "segment/relabel.py": "602ae5f1ea50",
    "segment/scale/resize.py": "7d2d57a19767",
    "segment/slabs.py": "46873eb3a7c4",
    "segment/stitch.py": "35de0d1addc5",
    "segment/tasks.py": "014a9c24f2d9",
}
"""Not those that choose block, channel, zoom and the like, which a run holds against its ledger."""
NONE_OF_THEM = {
    *("errors", "nets.device", "ngff", "ngff.image", "ngff.store", "replacing", "segment.outcome"),
    *("segment.network.inference", "segment.network.models"),
    *("segment.review.audit", "segment.review.doubts"),
}
"""Modules that those above use, and that decide nothing: what they choose is held, or told of."""


def digest(source: str) -> str:
    """Of the statements alone: no comments, texts, imports or blank lines."""
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if text or isinstance(node, (ast.Import, ast.ImportFrom)):
            lines[node.lineno - 1 : node.end_lineno] = [""] * (node.end_lineno - node.lineno + 1)
    told = "\n".join(line.rstrip() for line in lines if line.strip())
    return hashlib.sha256(told.encode()).hexdigest()[:12]


def test_sources_that_decide_labels_are_those_of_this_format() -> None:
    found = {"format": FORMAT}
    for name in KNOWN:
        if name != "format":
            found[name] = digest((PACKAGE / name).read_text())
    odd = [name for name in found if found[name] != KNOWN[name]]
    table = "".join(f'    "{name}": "{value}",\n' for name, value in found.items())
    assert not odd, ASKED.format(odd=", ".join(odd), table=f"KNOWN = {{\n{table}}}")


def test_what_sources_that_decide_labels_use_decides_them_or_nothing() -> None:
    """Hot pixels were mended by a module of which this file did not know."""
    for name in KNOWN:
        if name == "format":
            continue
        tree = ast.parse((PACKAGE / name).read_text())
        typing = [n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE" in ast.dump(n.test)]
        unused = {id(node) for branch in typing for node in ast.walk(branch)}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and id(node) not in unused:
                package, _, used = (node.module or "").partition(".")
                path = used.replace(".", "/")
                if package == "spoco_zoo" and used and used not in NONE_OF_THEM:
                    assert {f"{path}.py", f"{path}/__init__.py"} & KNOWN.keys(), (name, used)


def test_a_digest_is_of_statements_alone() -> None:
    plain = digest("import os\n\n\ndef f(x):\n    return x + 1\n")
    assert (
        digest('"""Text."""\n\nimport sys\ndef f(x):\n    # why\n    return x + 1  # so\n') == plain
    )
    assert digest("def f(x):\n    return x + 2\n") != plain
