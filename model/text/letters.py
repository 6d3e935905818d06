"""Spelling to phones for words that no dictionary has: g2p_en's model (Park and Kim, Apache 2.0).

A GRU reads the letters, another writes CMU phones, the likeliest one each time. The weights are
those of g2p-en 2.1.0 in half precision; the package itself wants NLTK's downloads.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

LONGEST = 20
"""Phones; upstream's limit."""


@dataclass(frozen=True)
class LettersConfig:
    letters: list[str]
    """Those of id 2 on: 0 pads, 1 is unknown."""
    phones: list[str]
    """With stress, of id 4 on: 0 pads, 1 is unknown, 2 starts and 3 ends."""
    width: int = 256


START, END = 2, 3


class Letters(nn.Module):
    """Reads one word at a time."""

    def __init__(self, config: LettersConfig):
        super().__init__()
        self.config = config
        width, phones = config.width, len(config.phones) + END + 1
        self.letter_embedding = nn.Embedding(len(config.letters) + 2, width)
        self.encoder = nn.GRU(width, width, batch_first=True)
        self.phone_embedding = nn.Embedding(phones, width)
        self.decoder = nn.GRUCell(width, width)
        self.output = nn.Linear(width, phones)

    @torch.inference_mode()
    def forward(self, word: str) -> list[str]:
        """Phones without stress of a word in the letters a to z."""
        ids = [self.config.letters.index(letter) + 2 for letter in [*word, "</s>"]]
        state: Tensor = self.encoder(self.letter_embedding(torch.tensor([ids])))[1][0]  # (1, width)
        last, phones = START, []
        while len(phones) < LONGEST:
            state = self.decoder(self.phone_embedding(torch.tensor([last])), state)
            last = int(self.output(state).argmax())
            if last <= END:
                break
            phones.append(self.config.phones[last - END - 1].rstrip("012"))
        return phones
