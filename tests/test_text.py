"""Normalising, and both tokenizers."""

# ruff: noqa: RUF001
import json
import re
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sayso.model.errors import CheckpointError, InputError
from sayso.model.text.homographs import homograph
from sayso.model.text.markup import read_lexicon, respell
from sayso.model.text.normalization import MAX_CHARACTERS, WORD, normalise, pieces
from sayso.model.text.phonemes import PHONES
from sayso.model.text.tokenizers import BPE, BY_RULES, Phonemes, load_tokenizer
from sayso.training.fitting.bpe import fit_bpe
from speech import KATHLEEN

ESCAPES = {"n": "\n", "\\": "\\"}
METADATA = KATHLEEN / "metadata.tsv"


@pytest.fixture(scope="module")
def phonemes() -> Phonemes:
    return Phonemes()


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("Hello world", "Hello world."),
        ("Dr. Smith met Mrs. Hale, etc.", "Doctor Smith met Missus Hale, et cetera."),
        ("St. James lives in Baker St.", "Saint James lives in Baker Street."),
        ("May 2, 2027", "May second, twenty twenty seven."),
        ("until 2 May 2027", "until the second of May twenty twenty seven."),
        ("the 3 June meeting", "the third of June meeting."),
        ("In May 10 people came.", "In May ten people came."),
        ("It cost $5.20.", "It cost five dollars and twenty cents."),
        ("£1.01 or €10", "one pound and one penny or ten euros."),
        ("1,005 of 2,345 in 1,000", "one thousand five of two thousand three hundred and forty five"
         " in one thousand."),
        ("$3 million", "three million dollars."),
        ("I have 1,234 apples; it's 1999.",
         "I have one thousand two hundred and thirty four apples, it's nineteen ninety nine."),
        ("Jan. 5th, 2020 at 5:30 p.m.", "the fifth of January, twenty twenty at five thirty P M."),
        ("Mr.Smith has 3 cats.He likes 2.", "Mister Smith has three cats. He likes two."),
        ("the 1990s, '80s and 2000s", "the nineteen nineties, eighties and two thousands."),
        ("$1,234.56", "one thousand two hundred and thirty four dollars and fifty six cents."),
        ("£5m, $2.5 billion, $1.5", "five million pounds, two point five billion dollars,"
         " one point five dollars."),
        ("100 km/h, 24/7", "one hundred kilometers per hour, twenty four seven."),
        ("1999-2005 and pages 10-12",
         "nineteen ninety nine to two thousand five and pages ten to twelve."),
        ("#1 and +1", "Number one and plus one."),
        ("50% of R&D", "fifty percent of R and D."),
        ("No. 7? No.", "Number seven? No."),
        ("the U.S. and NASA, e.g. this", "the U S and NASA, for example this."),
        ("3½ cups at -5°C", "three and one half cups at negative five degrees Celsius."),
        ("naïve café “quoted” it’s", "naive cafe quoted it's."),
        ("(quietly) 'Hello'... then — left?!", "quietly, Hello. then, left?"),
        ("well-known <b>B2B</b> 😀", "well known B two B."),
        ("www.example.com", "www dot example dot com."),
    ],
)  # fmt: skip
def test_normalise(written, spoken):
    assert normalise(written) == spoken
    assert normalise(spoken) == spoken


def test_the_table_of_spoken_forms():
    """written, spoken, source of the rule: 400 rows and more over all kinds."""
    lines = (Path(__file__).parent / "data" / "spoken.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines[1:]]
    assert len(rows) >= 400 and len({written for written, _, _ in rows}) == len(rows)
    wrong = []
    for written, spoken, _ in rows:
        text = re.sub(
            r"\\(n|\\|u[0-9a-f]{4})", lambda m: ESCAPES.get(m[1]) or chr(int(m[1][1:], 16)), written
        )
        if normalise(text) != spoken or normalise(spoken) != spoken:
            wrong.append((written, normalise(text), spoken))
    assert not wrong


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a *great* day", r"\*great\* asks for emphasis"),
        ("a _great_ day", "_great_ asks for emphasis"),
        ("[laughs] Well.", r"\[laughs\] asks for a manner"),
        ("<break time='1s'/> Well.", "<break time='1s'/> is SSML"),
        ("Well [pause 500ms] then", r"\[pause 0\.5s\]"),
        ("5 ⊗ 3", "circled times"),
        ("[AI|ʘ]", "'ʘ' in the spelling"),
        ("a \ue000 b", "private-use"),
    ],
)
def test_what_has_no_reading_is_named(text, named):
    with pytest.raises(InputError, match=named):
        normalise(text)


def test_pauses_stand_between_pieces():
    said = pieces("Wait [pause 500ms] for it. [pause 2s] [pause .5s] Now!")
    assert [each[:2] for each in said] == [("Wait.", 0.5), ("for it.", 2.5), ("Now!", None)]
    for text in ("[pause 1s] Hi.", "Hi. [pause 90s]", "Hi. [pause 0ms]", "Hi [pause soon] you"):
        with pytest.raises(InputError, match=r"\[pause"):
            pieces(text)


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("a *great* day", [("a great day.", ["great"])]),
        ("a _great_, long day", [("a great, long day.", ["great"])]),
        ("*Really?!* So it *is*.", [("Really?", ["Really"]), ("So it is.", ["is"])]),
        ("*No. Go.* Now", [("No.", ["No"]), ("Go.", ["Go"]), ("Now.", [])]),
        ("the *Titanic*'s *well*-known end", [
            ("the Titanic's well known end.", ["Titanic's", "well"]),
        ]),
        ("*Dr. Brown* paid *$1.50*", [
            ("Doctor Brown paid one dollar and fifty cents.",
             "Doctor Brown one dollar and fifty cents".split()),
        ]),
        ("*un*known, un*known*, fan*tas*tic, the *1990*s", [
            ("unknown, unknown, fantastic, the nineteen nineties.",
             "unknown unknown fantastic nineteen nineties".split()),
        ]),
        ("the *[AI|eɪ aɪ]* lab", [("the {EY AY} lab.", ["{EY AY}"])]),
        ("# A *Title*\n\nSo **bold**, 2*3*4.", [
            ("A Title.", ["Title"]), ("So bold, two times three times four.", []),
        ]),
        ("a \ufdd0b\ufdd1 &#xFDD0;c", [("a b c.", [])]),
    ],
)  # fmt: skip
def test_emphasis_is_known_by_its_words(written, spoken):
    """What is said is what it would be without; `STRESS` and `RELAX` cannot be smuggled in."""
    found = pieces(written)
    words = [[WORD.findall(piece.text)[word] for word in piece.stressed] for piece in found]
    assert list(zip([piece.text for piece in found], words, strict=True)) == spoken


@pytest.mark.parametrize(
    ("written", "named"),
    [
        ("So *Gov*. Brown *came*.", r"\*Gov\* is only a part"),
        ("It *is* $3 *million* now.", r"\*million\* is only a part"),
        ("On *May* 5, 2020.", r"\*May\* is only a part"),
    ],
)
def test_emphasis_that_splits_what_is_read_as_one_is_named(written, named):
    assert pieces(written.replace("*", ""))
    with pytest.raises(InputError, match=named):
        pieces(written)


def test_words_are_found_among_the_ids():
    phonemes = Phonemes()
    ids = phonemes.encode("Well, {EY AY} did.")
    words = zip(phonemes.words(ids), phonemes.decode(ids).split(), strict=True)
    assert list(words) == [
        *((0, phone) for phone in "W EH L".split()),
        *((-1, ","), (-1, "|"), (1, "EY"), (1, "AY"), (-1, "|")),
        *((2, phone) for phone in "D IH D".split()),
        (-1, "."),
    ]


def test_long_sentences_are_cut_at_the_strongest_marks():
    text = f"{'one ' * 30}; {'two ' * 30}; three."
    assert [piece.text[:3] for piece in pieces(text, 150)] == ["one", "two", "thr"]
    assert len(pieces(text)) == 1
    for text in (f"{'alpha beta, ' * 30}end.", f"{'alpha ' * 60}", "Hi there. " * 30):
        cut = pieces(text, 50)
        assert max(len(piece.text) for piece in cut) <= 50
        words = " ".join(piece.text for piece in cut)
        assert re.findall("[A-Za-z]+", words) == re.findall("[A-Za-z]+", text)


@pytest.mark.parametrize(
    "text", ["", "   ", "😀😀", "...", "—", "'", "$", "\x00", "привет", "你好 hi"]
)
def test_what_cannot_be_spoken_is_refused(text):
    with pytest.raises(InputError):
        normalise(text)


def test_long_text_is_refused_at_once():
    began = time.perf_counter()
    with pytest.raises(InputError, match="100000 characters"):
        normalise("1" * 100_000)
    assert time.perf_counter() - began < 0.1
    assert normalise("a" * MAX_CHARACTERS)


anything = st.text(max_size=60)
typed = st.lists(
    st.sampled_from(
        list("0123456789 .,-/:$£€%&@#+=°'\"()½²é aB")
        + "kg|km/h|St.|No.|1999|p.m.|Jan.|th|U.S.|'em|Mr.|$5.20|3/4/2021|10:45|e.g.".split("|")
    ),
    max_size=20,
).map("".join)


@settings(max_examples=300, deadline=None)
@given(text=anything | typed)
def test_any_text_is_spoken_or_refused(phonemes, text):
    try:
        spoken = normalise(text)
    except InputError:
        return
    assert re.fullmatch(r"'?[A-Za-z][A-Za-z',.?! ]*[.?!]", spoken) and "  " not in spoken
    assert normalise(spoken[:MAX_CHARACTERS]) == spoken or len(spoken) > MAX_CHARACTERS
    assert phonemes.encode(spoken)


def test_phonemes_of_known_words(phonemes):
    said = phonemes.decode(phonemes.encode("Hello, the world's end."))
    assert said == "HH AH L OW , | DH AH | W ER L D Z | EH N D ."


def test_the_letter_a_is_told_from_the_article(phonemes):
    said = phonemes.decode(phonemes.encode(normalise("A cat at 10 a.m.")))
    assert said == "AH | K AE T | AE T | T EH N | EY | EH M ."


@pytest.mark.parametrize(
    ("word", "phones"),
    [
        ("palmprint", "P AA M P R IH N T"),  # two words
        ("nasas", "N AE S AH Z"),  # stem and ending
        ("vlogging", "V L AA G IH NG"),  # from its letters
        ("zxcv", "Z IY EH K S S IY V IY"),  # no vowel: letter names
        ("brexit", "B R EH K S IH T"),
    ],
)
def test_unknown_words_have_a_reading(phonemes, word, phones):
    assert word not in phonemes.dictionary.words
    assert " ".join(phonemes.dictionary.phones(word)) == phones


@given(word=st.text("abcdefghijklmnopqrstuvwxyz'", min_size=1, max_size=15))
@settings(max_examples=60, deadline=None)
def test_every_word_has_phones(phonemes, word):
    if word.strip("'"):
        phones = phonemes.dictionary.phones(word)
        assert phones and set(phones) <= set(PHONES)


def test_the_dictionary_holds_phones_only(phonemes):
    listed = {phone for said in phonemes.dictionary.words.values() for phone in said.split()}
    assert listed == set(PHONES)


def test_text_that_was_not_normalised_is_refused(phonemes):
    with pytest.raises(InputError, match="normalise"):
        phonemes.encode("room 7")


@pytest.mark.parametrize(
    ("text", "phones"),
    [
        ("I read it yesterday.", "R EH D"),
        ("I will read it.", "R IY D"),
        ("The wind blew.", "W IH N D"),
        ("Please wind the clock.", "W AY N D"),
        ("They live here.", "L IH V"),
        ("A live concert.", "L AY V"),
        ("Nine lives.", "L AY V Z"),
        ("The lead pipe.", "L EH D"),
        ("They lead us.", "L IY D"),
        ("Tears fell.", "T IH R Z"),
        ("Do not tear it.", "T EH R"),
        ("To record a record.", "R IH K AO R D | AH | R EH K ER D"),
        ("They object to the object.", "AH B JH EH K T | T UW | DH AH | AA B JH EH K T"),
        ("Close the door, we are close.", "K L OW Z | DH AH | D AO R , | W IY | AA R | K L OW S"),
        ("His many uses.", "Y UW S IH Z"),
    ],
)
def test_homographs_are_told_apart_by_their_neighbours(phonemes, text, phones):
    assert phones in phonemes.decode(phonemes.encode(normalise(text)))


def test_a_spelling_gives_its_phones(phonemes):
    said = phonemes.decode(phonemes.encode(normalise("[AI|eɪ aɪ] is [data|D EY1 T AH0].")))
    assert said == "EY AY | IH Z | D EY T AH ."
    assert phonemes.decode(phonemes.encode("A.")) == "EY ."
    assert phonemes.decode(phonemes.encode(normalise("AI is"))) == "EY | AY | IH Z ."


def test_a_personal_lexicon(tmp_path):
    path = tmp_path / "lexicon.tsv"
    path.write_text("# mine\nSayso\tseɪsoʊ\nSQL\tS IY1 K W AH0 L\nNew York\tnjuː jɔːk\n", "utf-8")
    lexicon = read_lexicon(path)
    said = respell("Sayso's SQL, sql and new york.", lexicon)
    assert said == "{S EY S OW Z} {S IY K W AH L}, sql and {N Y UW Y AO K}."
    assert normalise(said) == said.replace("sql", "S Q L")
    for text, named in (("word only", "line 1: write a word"), ("a\tʘ", "line 1: 'ʘ'")):
        path.write_text(text, "utf-8")
        with pytest.raises(InputError, match=named):
            read_lexicon(path)
    with pytest.raises(InputError, match=r"none\.tsv"):
        read_lexicon(tmp_path / "none.tsv")
    with pytest.raises(InputError, match="letters, not phones"):
        BPE(fit_bpe(["a cat"], 270)).encode(said)


def test_homographs_in_real_sentences():
    """Labelled by hand, from LJ Speech's texts (public domain)."""
    lines = (Path(__file__).parent / "data" / "homographs.tsv").read_text().splitlines()[1:]
    rows = [line.split("\t") for line in lines]
    right = sum(homograph(text.split(), int(place)) == said for text, place, said in rows)
    assert right >= 0.95 * len(rows) and len(rows) >= 200


def test_phonemes_saved_and_loaded(phonemes, tmp_path):
    phonemes.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert (loaded.kind, loaded.size, loaded.identity) == ("phonemes", 44, phonemes.identity)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "dictionary": BY_RULES}))
    assert load_tokenizer(tmp_path).identity == phonemes.identity
    for key, value in (("dictionary", "0" * 64), ("symbols", ["|"])):
        (tmp_path / "config.json").write_text(json.dumps({**config, key: value}))
        with pytest.raises(CheckpointError, match=f"another {key}"):
            load_tokenizer(tmp_path)


def test_a_mark_that_a_model_never_met_is_read_as_another(tmp_path):
    Phonemes({"!": "."}).save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.encode("Go! Why? No.") == Phonemes().encode("Go. Why? No.")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "read_as": {"!": "AA"}}))
    with pytest.raises(CheckpointError, match="read_as"):
        load_tokenizer(tmp_path)


def test_real_text_goes_round(phonemes):
    if not METADATA.is_file():
        pytest.skip(f"real text is not there: {METADATA}")
    texts = [line.split("\t")[1] for line in METADATA.read_text().splitlines()[1:]]
    spoken = [normalise(text) for text in texts]
    lengths = [len(phonemes.encode(text)) for text in spoken]
    assert len(lengths) == 146 and min(lengths) > 5 and max(lengths) < 150
    bpe = BPE(fit_bpe(spoken, 512))
    assert bpe.size == 512
    assert all(bpe.decode(bpe.encode(text)) == text for text in spoken[:200])
    mean = sum(len(bpe.encode(text)) for text in spoken) / sum(map(len, spoken))
    assert mean < 0.5  # tokens per character


def test_bpe_saved_and_loaded(tmp_path):
    bpe = BPE(fit_bpe(["the cat sat on the mat."] * 3, 270))
    bpe.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert (loaded.kind, loaded.size, loaded.identity) == ("bpe", bpe.size, bpe.identity)
    unseen = "Quiz, vex? Ünseen 😀"
    assert loaded.decode(loaded.encode(unseen)) == unseen
    assert max(loaded.encode(unseen)) < loaded.size
    whole = (tmp_path / "tokenizer.json").read_text()
    for damaged in (whole[: len(whole) // 2], "", "{}"):
        (tmp_path / "tokenizer.json").write_text(damaged)
        with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
            load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("config", ["{}", '{"kind": "runes"}', "not json"])
def test_an_unknown_tokenizer_is_refused(config, tmp_path):
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        load_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(CheckpointError):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(("texts", "size"), [([], 300), (["a"], 100)])
def test_bpe_that_cannot_be_fitted_is_refused(texts, size):
    with pytest.raises(InputError):
        fit_bpe(texts, size)
