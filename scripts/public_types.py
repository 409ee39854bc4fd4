"""Ask pyright whether every public name of the installed package is fully typed; part of `make types`.

mypy checks that the code agrees with its annotations; this checks that a user's editor sees no unknown type.
A type that pyright infers without an annotation, such as a module's logger, is known.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec

PACKAGE = "umbel"
Symbol = dict[str, object]


def verdict(report: dict[str, object]) -> list[str]:
    """Turn pyright's report into one line for each public name whose type is not known."""
    lines = []
    completeness = msgspec.convert(report.get("typeCompleteness", {}), dict[str, object])
    for symbol in msgspec.convert(completeness.get("symbols", []), list[Symbol]):
        if symbol.get("isExported") and not symbol.get("isTypeKnown") and not symbol.get("isTypeAmbiguous"):
            texts = [str(item.get("message")) for item in msgspec.convert(symbol["diagnostics"], list[Symbol])]
            lines.append(f"{symbol['name']}: {'; '.join(texts) or 'type is not known'}")
    for item in msgspec.convert(report.get("generalDiagnostics", []), list[Symbol]):
        if item.get("severity") == "error":
            lines.append(str(item.get("message")))
    return lines


def main() -> int:
    """Run pyright and print what it misses; 0 when all is known."""
    program = Path(sys.executable).parent / "basedpyright"
    command = [str(program), "--verifytypes", PACKAGE]
    # In this mode pyright looks for packages beside the first python on PATH and heeds no other option.
    environment = os.environ | {"PATH": f"{program.parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    options = ["--ignoreexternal", "--outputjson"]
    done = subprocess.run([*command, *options], capture_output=True, check=False, env=environment)
    try:
        report = msgspec.json.decode(done.stdout, type=dict[str, object])
    except msgspec.DecodeError:
        sys.stderr.buffer.write(done.stdout + done.stderr)
        return 1
    completeness = msgspec.convert(report.get("typeCompleteness", {}), dict[str, object])
    names = msgspec.convert(completeness.get("symbols", []), list[Symbol])
    missing = verdict(report)
    print(*missing, sep="\n", end="\n" if missing else "")
    exported = sum(bool(name.get("isExported")) for name in names)
    print(f"pyright: {exported} public names, {len(missing)} not fully typed")
    # Nothing found at all means that the package was not seen, not that it is well.
    return 1 if missing or not exported else 0


if __name__ == "__main__":
    sys.exit(main())
