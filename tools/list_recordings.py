"""List a corpus's utterances: `python -m tools.list_recordings NAME ROOT... > NAME.sha256`.

`sayso train --listen` speaks from those in `src/sayso/assets/recordings` alone. ROOT is the corpus
as it was unpacked from an archive of the checksum in `model/corpora.yaml`; several, where the same
recordings come in several codings.
"""

import sys
from pathlib import Path

from sayso.training.readers import read_corpus


def main() -> None:
    """Print `SHA256  ID` of each utterance, sorted by id."""
    name, *roots = sys.argv[1:]
    known = {(each.id, each.sha256()) for root in roots for each in read_corpus(name, Path(root))}
    print("\n".join(f"{sha256}  {id}" for id, sha256 in sorted(known)))


if __name__ == "__main__":
    main()
