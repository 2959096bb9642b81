"""Compiles Berg's .proto files to Python: `python tools/build_protos.py [FILE.proto ...]`.

Without arguments every .proto under src/berg is compiled. The results (`NAME_pb2.py`, `NAME_pb2.pyi`) stand next to
their source and are committed, so that an installation needs no compiler. gRPC stubs are not made: Berg calls and
serves methods by their path (`runtime/remote.py`, `runtime/serve.py`).
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent / "src" / "berg"


def compile_proto(source: Path) -> None:
    from grpc_tools import protoc

    # from the root: a file is known to the process by its path, and `rpc.proto` is etcd's clients' too
    root = ROOT.parent
    arguments = ["protoc", f"-I{root}", f"--python_out={root}", f"--pyi_out={root}", str(source)]
    if protoc.main(arguments) != 0:
        raise SystemExit(f"{source} does not compile")
    _accept_older_runtimes(source.with_name(f"{source.stem}_pb2.py"))


def _accept_older_runtimes(module: Path) -> None:
    """The compiler pins its output to its own release. What it makes is a serialised descriptor that every runtime
    since 4.21 can load, and Berg is installed beside packages that ask for older ones, so the pin goes."""
    text = module.read_text()
    text = re.sub(r"^from google.protobuf import runtime_version.*\n", "", text, flags=re.M)
    text = re.sub(r"^_runtime_version\.ValidateProtobufRuntimeVersion\(.*?^\)\n", "", text, flags=re.M | re.S)
    module.write_text(text)


def main() -> None:
    named = [Path(name).resolve() for name in sys.argv[1:]]
    for source in named or sorted(ROOT.rglob("*.proto")):
        compile_proto(source)
        print(source.relative_to(ROOT))


if __name__ == "__main__":
    main()
