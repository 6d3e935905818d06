"""Marks, manifests and the ledger over HTTP: what a file carries, and what was allowed and made."""

import re
from typing import Annotated, Any

import torch
from fastapi import APIRouter, Depends, File, Request, UploadFile
from fastapi.responses import PlainTextResponse, Response

from sayso.inference.detection.detector import Detection
from sayso.inference.provenance.c2pa import kept_path, sidecar_of
from sayso.inference.provenance.certificates import load_anchor
from sayso.inference.store.checking import verify
from sayso.inference.store.export import Checked, verify_export
from sayso.inference.store.keys import dated_pem
from sayso.inference.store.store import Store
from sayso.inference.watermark.perth import PERTH_RATE
from sayso.model.audio import MIN_SECONDS
from sayso.model.errors import SaysoError
from sayso.model.files import open_regular, read_bounded

from .errors import ProblemError
from .house import Desk, Looking, caller, house
from .tokens import Token
from .uploads import decoded, spooled, unnamed

router = APIRouter()
Caller = Annotated[Token, Depends(caller)]
LEDGER_ID = re.compile(r"g-[0-9a-f]{32}", re.ASCII)
MOST_ROWS = 200
MOST_SIDECAR = 2**22  # bytes


@router.post("/v1/detect")
async def detect(
    request: Request,
    token: Caller,
    file: Annotated[UploadFile, File(description="Any audio file.")],
    manifest: Annotated[UploadFile | None, File(description="Its .c2pa, of opus and ogg.")] = None,
) -> dict:
    """Which marks a file carries, where, and whose row of the ledger they name."""
    home = house(request)
    async with spooled(home.spool, ("file", await file.read())) as folder:
        path, most, rates = folder / "file", home.settings.upload_seconds, (PERTH_RATE,)
        with open_regular(path) as sent:
            upload = await decoded(sent, folder, rates, MIN_SECONDS, most, home.trying)
        path = path.rename(path.with_suffix(upload.suffix))
        if manifest is not None:
            sidecar_of(path).write_bytes((await manifest.read())[:MOST_SIDECAR])

        def found(looking: Looking) -> dict[str, Any]:
            with unnamed(path):
                sound = torch.from_numpy(upload.sounds[PERTH_RATE])
                detection = looking.detector().detect(path, sound)
            return _told(detection, looking.store, token)

        return await home.looking.ask(request, found, stay=True)


def _told(detection: Detection, store: Store, token: Token) -> dict[str, Any]:
    """What was found; of a row of ours who asked for it, to those who may see its voice."""
    told = detection.to_json() | {"marked": detection.marked}
    told.pop("file")
    ids = list(detection.ledger_ids)
    if detection.manifest.state == "trusted" and detection.manifest.ledger_id not in ids:
        ids.append(str(detection.manifest.ledger_id))
    rows = [row for each in ids for row in store.entries("released", each)]
    seen = [row for row in rows if token.sees(row.content["voice"])]
    told["rows"] = [
        {"ledger_id": row.id, "time": row.time}
        | {name: row.content[name] for name in ("voice", "purpose", "user")}
        for row in seen
    ]
    return told


@router.get("/v1/manifests/{ledger_id}", response_class=Response)
async def manifest(request: Request, ledger_id: str, token: Caller) -> Response:
    """The C2PA manifest of a file that the token's name asked for."""
    missing = ProblemError(404, "manifest-unknown", "There is no such output of yours.")
    if not LEDGER_ID.fullmatch(ledger_id):
        raise missing

    def found(desk: Desk) -> bytes:
        rows = desk.store.entries("released", ledger_id)
        path = kept_path(desk.store.home, ledger_id)
        mine = rows and (token.role == "admin" or rows[-1].content["user"] == token.name)
        if not mine or not path.is_file():
            raise missing
        return read_bounded(path, MOST_SIDECAR)

    data = await house(request).desk.ask(request, found)
    return Response(data, media_type="application/c2pa")


@router.get("/v1/keys", response_class=PlainTextResponse)
async def keys(request: Request) -> str:
    """The store's public keys, to check receipts and ledger with elsewhere."""

    def found(desk: Desk) -> str:
        spans = desk.store.key_spans()
        pems = desk.store.public_keys().items()
        return "".join(dated_pem(pem, spans[kid]) for kid, pem in pems)

    return await house(request).desk.ask(request, found)


@router.get("/v1/root", response_class=PlainTextResponse)
async def root(request: Request) -> str:
    """The root certificate that makes the manifests of this service trusted elsewhere."""
    return await house(request).desk.ask(
        request, lambda desk: load_anchor(desk.store.home / "ca").root.decode()
    )


@router.get("/v1/ledger/head")
async def head(request: Request) -> dict:
    """A signed head; kept elsewhere, it proves later that rows were only added."""

    def found(desk: Desk) -> dict:
        last = desk.store.check()
        return {"head": desk.store.head(), "rows": last.size, "hash": last.hash, "time": last.time}

    return await house(request).desk.ask(request, found)


@router.get("/v1/ledger")
async def rows(request: Request) -> dict:
    """The last rows of the ledger's public half: no name, voice or text is in it."""

    def found(desk: Desk) -> list[dict]:
        size = desk.store.check().size
        last = [row for row, _ in desk.store.rows(max(1, size - MOST_ROWS + 1))]
        return [{"seq": r.seq, "time": r.time, "event": r.event, "hash": r.hash} for r in last]

    return {"object": "list", "data": await house(request).desk.ask(request, found)}


@router.get("/v1/ledger/verify")
async def whole(request: Request) -> dict:
    """Check every byte of the store that matters."""

    def found(looking: Looking) -> dict:
        try:
            last = verify(looking.store)
        except SaysoError as error:
            message = str(error).replace(str(looking.store.home), "the store")
            raise ProblemError(409, "store-changed", message) from None
        return {"good": True, "rows": last.size, "hash": last.hash}

    return await house(request).looking.ask(request, found)


@router.post("/v1/ledger/check")
async def check(
    request: Request,
    file: Annotated[UploadFile, File(description="An exported ledger.")],
    key: Annotated[UploadFile | None, File(description="Public keys, PEM.")] = None,
    head: Annotated[UploadFile | None, File(description="An older head.")] = None,
) -> dict:
    """Check an exported ledger, anybody's; without a key it vouches only for itself."""
    home = house(request)
    public, old = [None if part is None else await _text(part) for part in (key, head)]
    async with spooled(home.spool, ("ledger", await file.read())) as folder:

        def found(_: Looking) -> Checked:
            try:
                return verify_export(folder / "ledger", public, old)
            except SaysoError as error:
                raise ProblemError(422, "ledger-wrong", str(error)) from None

        checked = await home.looking.ask(request, found, stay=True)
    last, signers = checked.head, sorted(checked.signers)
    return {"whole": True, "rows": last.size, "hash": last.hash, "signers": signers}


async def _text(part: UploadFile) -> str:
    try:
        return (await part.read()).decode("ascii").strip()
    except UnicodeDecodeError:
        raise ProblemError(400, "field", "Keys and heads are ASCII text.") from None
