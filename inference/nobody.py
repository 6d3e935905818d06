"""The voice `nobody` of a model of one's own: a prompt that the model makes up, from text alone.

What ships with a model folder is believed only if it is the package's: a stranger's folder could
call anybody's recording nobody's. So each machine lets the model make up its own.
"""

import torch
from torch import Tensor

from sayso.model.bundle import Bundle
from sayso.model.codecs.base import NOTHING
from sayso.model.codecs.voice_edit import Alteration
from sayso.model.engine import Engine, Request
from sayso.model.errors import UnfinishedError
from sayso.model.text.normalization import normalise

from .consent.other_voices import issue_own_voice
from .gate import Gate

NOBODY = "nobody"
INVENTED = "I was never born, and this voice is not the voice of anyone."
MOST_SEEDS = 20


def invent(
    bundle: Bundle, seconds: float, first_seed: int = 0, edit: Alteration | None = None
) -> tuple[Tensor, int]:
    """Prompt codes (K', T) that a model makes up with no prompt at all, and the seed that ended.

    Args:
        seconds: The longest that `INVENTED` may take.
        edit: Takes the voice away from those that the model learnt from.

    Raises:
        InputError: The codec cannot edit.
        UnfinishedError: It did not end for any of `MOST_SEEDS` seeds.
    """
    ids = bundle.tokenizer.encode(normalise(INVENTED))
    nothing = torch.zeros(bundle.codec.codebooks, 0, dtype=torch.long)
    limit = int(seconds * bundle.codec.frame_rate)
    for seed in range(first_seed, first_seed + MOST_SEEDS):
        request = Request(ids, nothing, limit, bundle.model.generator(seed), bundle.sampling)
        [(codes, finished, where)] = Engine(bundle.model).answer([request])
        if finished and codes.shape[1] >= bundle.codec.frame_rate:
            prompt = bundle.codec.as_prompt(codes)
            if edit is not None and not edit.neutral:
                edited = bundle.codec.encode(bundle.codec.hear(prompt, edit)[None])[0]
                symbols = None if where is None else torch.tensor([NOTHING, *ids])[where.cpu()]
                prompt = bundle.codec.as_prompt(codes, edited, symbols)
            return prompt, seed
    raise UnfinishedError(
        f"the model made up no voice that ended within {limit} frames, in {MOST_SEEDS} tries: "
        "train it longer"
    )


def own_nobody(gate: Gate, bundle: Bundle, seconds: float) -> str:
    """The id under which `nobody` speaks with a model: made up, and registered, at first asking.

    Raises:
        InputError: The card asks for an edit that the codec cannot do.
        UnfinishedError: The model cannot make one up.
        StoreError: The store is unreadable or was changed.
    """
    identity = bundle.codec.identity
    found = gate.store.voice(NOBODY)
    if found is not None and (found.revoked or gate.receipt(NOBODY).codec == identity):
        return NOBODY
    own = f"{NOBODY}-{identity[:12]}"
    if gate.store.voice(own) is None:
        how = bundle.card.get(NOBODY, {})
        edit = Alteration(pitch=how.get("pitch", 0.0), formant=how.get("formant", 1.0))
        codes, seed = invent(bundle, seconds, int(how.get("seed", 0)), edit)
        source = f"made by the model of card {bundle.card_hash[:12]}, seed {seed}"
        with gate.store.exclusive():  # another may have made it up in the meantime
            if gate.store.voice(own) is None:
                issue_own_voice(gate.store, own, codes, normalise(INVENTED), identity, source)
    return own
