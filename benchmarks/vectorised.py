"""Which loops of the kernels are vector code, and how much of their arithmetic: read from the machine code.

    python benchmarks/vectorised.py --output benchmarks/results/vectorised.json
    python benchmarks/vectorised.py heat --dtype float32 --loops

Every kernel file is compiled as the engine does, with line numbers besides (they do not change the code).
objdump shows the floating-point arithmetic (add, subtract, multiply, divide, root, fused, least, largest), on
registers of 16, 32 or 64 bytes either packed or one number alone; addr2line says from which lines each
instruction was made, through all functions put in place. So each belongs to a vector loop of the source
(FOR_EACH_CELL, _IN_ROW, _IN_STRIP, _LANE), or to none. A loop is vectorised if its packed instructions,
each run once, do more operations than the others: these are what is left over after the last whole vector,
written out up to 15 times, and what is the same for the whole loop.

The table counts vector loops with arithmetic, and how many of them are vectorised; then instructions: packed;
scalar in vectorised loops (remainders), in other vector loops, and outside of all (once a row or a team); and
the share of packed ones where remainders are left out. Below stand the loops that are not vectorised. How
often an instruction runs it does not say: for that see the parts of the peak that the other programs report.
"""

from __future__ import annotations

import argparse
import bisect
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from hpcmsm.kernels import build, kernel_folder  # noqa: E402

OPERATIONS = (
    "add|sub|mul|div|sqrt|max|min|addsub|fn?m(?:add|sub)(?:132|213|231)|fm(?:addsub|subadd)(?:132|213|231)"
)
ARITHMETIC = re.compile(rf"^v?(?:{OPERATIONS})(?P<kind>[ps])(?P<size>[sd])$")
SYMBOL = re.compile(r"^[0-9a-f]+ <(\w+)[^>]*>:$")
INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\s+(\S+)\s*(.*)$")
REGISTER = re.compile(r"%([xyz])mm")
WIDTHS = {"x": 16, "y": 32, "z": 64}  # bytes
COUNTS = ("loops", "vectorised", "packed", "remainders", "scalar_loops", "outside")
VECTOR_LOOP = re.compile(r"\bFOR_EACH_(?:CELL_3D|CELL_2D|CELL|IN_ROW|IN_STRIP|LANE)\b")
PLACE = re.compile(r"([^/]+):(\d+)")
FUNCTION = re.compile(r"^(?:INLINE|SEPARATE|KERNEL)\b[^(;]*?(\w+)\s*\(", re.M)

# Loops that the compiler leaves scalar, by file and function, and why that costs nothing worth having.
RARE = {
    ("lennard_jones.c", "close_block"): "once a block of samples",
    ("lennard_jones.c", "lennard_jones"): "once a call",
    ("grain.c", "grain_2d"): "once a call",
    ("unit_cell_progress.h", "judge"): "once an iteration and load, beside the work on all points",
}


@dataclass(frozen=True)
class Instruction:
    """One of floating-point arithmetic: where, in which function, numbers at once, bytes of its registers."""

    address: int
    function: str
    packed: bool
    lanes: int
    width: int


@dataclass
class Loop:
    """A vector loop of the source and the arithmetic that was made of it.

    Args:
        file, function, first, last: where it stands.
        text: its first line.
    """

    file: str
    function: str
    first: int
    last: int
    text: str
    found: list[Instruction] = field(default_factory=list)

    @property
    def packed(self) -> int:
        return sum(one.packed for one in self.found)

    @property
    def scalar(self) -> int:
        return len(self.found) - self.packed

    @property
    def width(self) -> int:
        """Bytes of its longest vectors, 0 if there are none."""
        return max((one.width for one in self.found if one.packed), default=0)

    @property
    def vectorised(self) -> bool:
        return sum(one.lanes for one in self.found if one.packed) > self.scalar


def vector_loops(path: Path) -> list[Loop]:
    """The vector loops of a kernel file and its parts, each to the end of the statement."""
    loops = []
    for file in build.files_of(path):
        text = re.sub(
            r"//[^\n]*|/\*.*?\*/", lambda found: re.sub(r"[^\n]", " ", found[0]), file.read_text(), flags=re.S
        )
        functions = [(match.start(), match[1]) for match in FUNCTION.finditer(text)]
        starts = [match.end() for match in re.finditer("\n", text)]
        for word in VECTOR_LOOP.finditer(text):
            first, last = (1 + bisect.bisect(starts, at) for at in (word.start(), _end(text, word.end())))
            function = functions[bisect.bisect(functions, (word.start(), "")) - 1][1]
            loops.append(Loop(file.name, function, first, last, text[word.start() :].split("\n")[0]))
    return loops


def _end(text: str, at: int) -> int:
    """Where the statement of a loop ends: at a semicolon or closing brace outside of all brackets."""
    depth = 0
    for place in range(at, len(text)):
        depth += (text[place] in "({[") - (text[place] in ")}]")
        if depth == 0 and text[place] in ";}":
            return place
    return len(text)


def machine_code(path: Path, dtype: str, folder: Path) -> Path:
    """The kernel file compiled as the engine does, with line numbers."""
    source, library = folder / path.name, folder / f"{path.stem}.so"
    source.write_text(build.full_source(path))
    command, _ = build.compiler()
    kind = ["-DHPCMSM_FLOAT32"] if dtype == "float32" else []
    subprocess.run([*command, *build.FLAGS, *kind, "-g1", source, "-o", library, "-lm"], check=True)
    return library


def arithmetic_of(library: Path) -> list[Instruction]:
    """All floating-point arithmetic of a compiled file."""
    command = ["objdump", "-d", "--no-show-raw-insn", str(library)]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found, function = [], ""
    for line in listing.splitlines():
        symbol, shown = SYMBOL.match(line), INSTRUCTION.match(line)
        function = symbol[1] if symbol else function
        kind = ARITHMETIC.match(shown[2]) if shown else None
        if kind:
            packed, size = kind["kind"] == "p", 4 if kind["size"] == "s" else 8
            width = max(WIDTHS[name] for name in REGISTER.findall(shown[3]))
            lanes = width // size if packed else 1
            found.append(Instruction(int(shown[1], 16), function, packed, lanes, width))
    return found


def origins(library: Path, found: list[Instruction]) -> list[list[tuple[str, int]]]:
    """For each instruction the lines it was made of, from the innermost function outwards."""
    addresses = "".join(f"{one.address:#x}\n" for one in found)
    command = ["addr2line", "-a", "-i", "-e", str(library)]
    shown = subprocess.run(command, input=addresses, capture_output=True, text=True, check=True).stdout
    chains = []
    for line in shown.splitlines():
        if line.startswith("0x"):
            chains.append([])
        elif place := PLACE.search(line):
            chains[-1].append((place[1], int(place[2])))
    return chains


def examine(path: Path, dtype: str = "float64") -> tuple[list[Loop], list[Instruction]]:
    """The vector loops of a kernel file, and the arithmetic outside of all."""
    loops, outside = vector_loops(path), []
    with tempfile.TemporaryDirectory() as folder:
        library = machine_code(path, dtype, Path(folder))
        found = arithmetic_of(library)
        chains = origins(library, found)
    for one, chain in zip(found, chains, strict=True):
        around = [
            loop
            for file, line in chain
            for loop in loops
            if loop.file == file and loop.first <= line <= loop.last
        ]
        (around[0].found if around else outside).append(one)
    return loops, outside


def scalar_loops(path: Path, dtype: str = "float64") -> list[tuple[str, str]]:
    """File and function of the vector loops of a kernel file with arithmetic that is not vectorised."""
    loops, _ = examine(path, dtype)
    return [(loop.file, loop.function) for loop in loops if loop.found and not loop.vectorised]


def table(path: Path, dtype: str) -> tuple[list[dict], list[Loop]]:
    """A row for each function of a file, and its loops that have arithmetic."""
    loops, outside = examine(path, dtype)
    loops = [loop for loop in loops if loop.found]
    rows = {}
    for loop in loops:
        place = "remainders" if loop.vectorised else "scalar_loops"
        for function in {one.function for one in loop.found}:
            row = rows.setdefault(function, _empty_row(path, function, dtype))
            row["loops"] += 1
            row["vectorised"] += loop.vectorised
            _count(row, place, [one for one in loop.found if one.function == function])
    for one in outside:
        _count(rows.setdefault(one.function, _empty_row(path, one.function, dtype)), "outside", [one])
    for row in rows.values():
        row["share"] = row["packed"] / max(1, row["packed"] + row["scalar_loops"] + row["outside"])
    return list(rows.values()), loops


def _empty_row(path: Path, function: str, dtype: str) -> dict:
    return {"file": path.name, "kernel": function, "dtype": dtype, **dict.fromkeys(COUNTS, 0), "bytes": 0}


def _count(row: dict, place: str, found: list[Instruction]) -> None:
    for one in found:
        row["packed" if one.packed else place] += 1
        row["bytes"] = max(row["bytes"], one.width if one.packed else 0)


def main(arguments: list[str] | None = None) -> dict:
    """Print the table; what the JSON file holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", help="names in kernels/ without .c (default: all)")
    parser.add_argument("--dtype", choices=("float64", "float32"), help="default: both")
    parser.add_argument(
        "--loops", action="store_true", help="every loop, not only those that are not vectorised"
    )
    parser.add_argument("--output", type=Path)
    options = parser.parse_args(arguments)
    names = options.files or sorted(path.stem for path in kernel_folder().glob("*.c"))
    rows, shown = [], []
    print(f"| kernel | real | {' | '.join(COUNTS).replace('_', ' ')} | share | bytes |")
    print("| --- " * (len(COUNTS) + 4) + "|")
    for name in names:
        for dtype in [options.dtype] if options.dtype else ("float64", "float32"):
            more, loops = table(build.find_source(name), dtype)
            rows += more
            shown += [(dtype, loop) for loop in loops if options.loops or not loop.vectorised]
            for row in more:
                counts = " | ".join(str(row[name]) for name in COUNTS)
                share = f"{100 * row['share']:.0f} % | {row['bytes']}"
                print(f"| {row['kernel']} | {row['dtype']} | {counts} | {share} |", flush=True)
    for dtype, loop in shown:
        print(_line(dtype, loop))
    return _result(rows, shown, options)


def _line(dtype: str, loop: Loop) -> str:
    counts = f"{loop.packed} packed, {loop.scalar} scalar"
    reason = "" if loop.vectorised else f" ({RARE.get((loop.file, loop.function), 'not vectorised')})"
    return f"{dtype} {loop.file}:{loop.first} {loop.function}: {counts}{reason}"


def _result(rows: list[dict], shown: list[tuple[str, Loop]], options) -> dict:
    from mpi4py import MPI

    from hpcmsm.provenance import provenance

    if not rows:
        raise AssertionError("no kernel was found")
    scalar = [_line(dtype, loop) for dtype, loop in shown if not loop.vectorised]
    result = {"provenance": provenance(MPI.COMM_SELF), "kernels": rows, "not_vectorised": scalar}
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, indent=2) + "\n")
    return result


if __name__ == "__main__":
    main()
