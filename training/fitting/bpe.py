"""A byte-pair vocabulary fitted to transcripts (Sennrich et al., arXiv:1508.07909)."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer as HFTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

from sayso.model.errors import InputError
from sayso.model.text.normalization import normalise
from sayso.model.text.tokenizers import BPE

from ..readers import read_corpus


def fit_text(roots: dict[str, Path], size: int) -> BPE:
    """BPE over the normalised transcripts of listed corpora; what cannot be spoken is left out."""
    texts = []
    for name, root in roots.items():
        for utterance in read_corpus(name, root):
            with contextlib.suppress(InputError):
                texts.append(normalise(utterance.text))
    return BPE(fit_bpe(texts, size))


def fit_bpe(texts: Sequence[str], size: int) -> HFTokenizer:
    """A byte-pair vocabulary of at most `size` tokens over normalised texts.

    Bytes are the base alphabet, so no text is ever out of vocabulary.

    Raises:
        InputError: `size` does not hold the 256 bytes, or there is no text.
    """
    if size < 256 or not texts:
        raise InputError(f"BPE of size {size} on {len(texts)} texts: needs 256 bytes and a text")
    tokenizer = HFTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
