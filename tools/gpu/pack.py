"""Packs what a GPU needs, from a run on this machine.

python -m tools.gpu.pack --run runs/mini-5 --examples runs/decoder6/examples --out runs/gpu-kit
"""

import argparse
import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from sayso.model import corpora
from sayso.model.errors import InputError
from sayso.training.fitting.decoder_examples import read_example
from sayso.training.held_out import held_out
from sayso.training.shards import MANIFEST
from sayso.training.tokens import read_manifest

from .examples import write_examples
from .parcels import pack

MOST = 45 * 10**6
"""Bytes of the kit: with the repository it may travel at most 64 MiB."""
HELD_OUT = {"kathleen": 47, "librispeech-clips": 11}
"""One utterance in so many is never trained on, in any part (docs/mini.md); of others none."""


def pack_tokens(run: Path, out: Path) -> int:
    """Token folders, and the timbre with the codec whose codes they are; returns bytes."""
    with TemporaryDirectory() as place:
        names: dict[str, None] = {}
        for folder in sorted(run.glob("tokens-*")):
            manifest = read_manifest(folder, corpora.names())
            names |= dict.fromkeys(each["name"] for each in manifest["corpora"])
            (Path(place) / folder.name).mkdir()
            for file in (MANIFEST, *(shard["file"] for shard in manifest["shards"])):
                shutil.copyfile(folder / file, Path(place) / folder.name / file)
        if not names:
            raise InputError(f"{run} holds no tokens-* folder: run prepare first")
        codec = shutil.ignore_patterns("decoder")
        shutil.copytree(run / "timbre", Path(place) / "timbre", ignore=codec)
        return pack(Path(place), out, "tokens", list(names), smaller=True)


def pack_examples(run: Path, folder: Path, out: Path) -> tuple[int, float]:
    """A decoder's examples; returns bytes, and by how many deviations they are off."""
    examples = {}
    for path in sorted(folder.glob("*.safetensors")):
        corpus, _, id = path.stem.partition("~")
        corpora.get(corpus)
        if corpus not in HELD_OUT or not held_out(id, HELD_OUT[corpus]):
            examples[path.stem] = read_example(path)
    if not examples:
        raise InputError(f"{folder} holds no examples: fit a decoder first (docs/mini.md)")
    manifests = sorted(run.glob(f"tokens-*/{MANIFEST}"))
    symbols = json.loads(manifests[0].read_text())["tokenizer"]["size"]
    with TemporaryDirectory() as place:
        off = write_examples(Path(place), examples, symbols)
        names = sorted({name.partition("~")[0] for name in examples})
        return pack(Path(place), out, "examples", names, smaller=True), off


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/mini-5"))
    parser.add_argument("--examples", type=Path, default=Path("runs/decoder6/examples"))
    parser.add_argument("--out", type=Path, default=Path("runs/gpu-kit"))
    given = parser.parse_args()
    tokens = pack_tokens(given.run, given.out)
    examples, off = pack_examples(given.run, given.examples, given.out)
    print(f"tokens {tokens / 1e6:.1f} MB, examples {examples / 1e6:.1f} MB, off by {off:.3f}")
    if tokens + examples > MOST:
        raise InputError(f"the kit has {(tokens + examples) / 1e6:.1f} MB, over {MOST / 1e6:.0f}")


if __name__ == "__main__":
    main()
