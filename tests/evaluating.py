"""A process that evaluates: `python evaluating.py HOME OUT SHARD`, a line for each trial.

Four sentences of nobody's and two rows, judged by what hears a mark.
"""

import sys
from pathlib import Path

from sayso.evaluation.metrics import Panel, Sound, resemblyzer, whisper
from sayso.evaluation.protocols import Trial
from sayso.evaluation.run import Plan, Run, shard_of
from sayso.inference.recognisers import load_ears
from sayso.inference.store.store import Store
from sayso.model.bundle import BUNDLED

TEXTS = [
    "We met in the old market.",
    "Red lorry, yellow lorry.",
    "By ten past six all shops are shut.",
    "Why not?",
]


def main(home: Path, out: Path, shard: str) -> None:
    trials = [Trial(f"t{number}", "nobody", text) for number, text in enumerate(TEXTS)]
    plan = Plan("few", trials, Path(), {"mini": BUNDLED}, baseline=True, together=2)
    ears = load_ears()
    with Store.open(home) as store:
        panel = Panel([whisper("tiny.en", ears), resemblyzer(ears), Sound()], out / "cache")
        run = Run(plan, out, panel, store)
        print("begun", flush=True)
        for line in run.work(*shard_of(shard)):
            print(line, flush=True)
        run.results()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
