"""Store result objects at a PACS by C-STORE, each kind of object negotiated for itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context

from mhsev_monai.pacs.gateway.delivery_rules import Judgement, Outcome, judge_status, not_accepted
from mhsev_monai.pacs.gateway.scu import NothingAcceptedError, Peer, PeerError, associate, release

_PLAIN = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
# Of pynetdicom and DICOM: the identifiers of contexts are the odd numbers below 256.
_MAX_CONTEXTS = 128


@dataclass(frozen=True)
class Outgoing:
    """A DICOM file to be sent, as its own head tells."""

    path: Path
    sop_class: UID
    sop_uid: UID
    transfer_syntax: UID


@dataclass(frozen=True)
class Sent:
    """What became of one file."""

    path: Path
    judgement: Judgement


def send_files(peer: Peer, paths: Sequence[Path]) -> list[Sent]:
    """Send files in their order over one association; one result for each path, in the same order.

    Sending the same file again is harmless: a PACS keeps one object per instance UID.

    Args:
        peer: the PACS.
        paths: DICOM files.

    Returns:
        For each file whether it is stored, refused for good, or to be tried again. A PACS that cannot be reached is a
        reason to try again, not an exception.
    """
    heads = [_head(path) for path in paths]
    judgements = iter(_send_all(peer, [head for head in heads if isinstance(head, Outgoing)]))
    return [
        Sent(path, head if isinstance(head, Judgement) else next(judgements))
        for path, head in zip(paths, heads, strict=True)
    ]


def _send_all(peer: Peer, outgoing: Sequence[Outgoing]) -> list[Judgement]:
    if not outgoing:
        return []
    try:
        association = associate(peer, contexts_for(outgoing))
    except NothingAcceptedError:
        return [_not_accepted(item) for item in outgoing]
    except PeerError as error:
        return [Judgement(Outcome.RETRY, str(error))] * len(outgoing)
    try:
        return [_send(association, item, number) for number, item in enumerate(outgoing, 1)]
    finally:
        release(association)


def contexts_for(outgoing: Sequence[Outgoing]) -> list[PresentationContext]:
    """What to propose: each pair of class and transfer syntax apart, so that the PACS can refuse one and take others.

    Raises:
        ValueError: if there are more than 128 pairs.
    """
    pairs: dict[tuple[UID, UID], None] = {}
    for item in outgoing:
        # Either plain syntax can be made of the other on the way; a PACS that knows only one is served.
        syntaxes = _PLAIN if item.transfer_syntax in _PLAIN else (item.transfer_syntax,)
        pairs |= dict.fromkeys((item.sop_class, syntax) for syntax in syntaxes)
    if len(pairs) > _MAX_CONTEXTS:
        raise ValueError(f"one association can propose {_MAX_CONTEXTS} kinds of object, got {len(pairs)}; send fewer")
    return [build_context(sop_class, syntax) for sop_class, syntax in pairs]


def _head(path: Path) -> Outgoing | Judgement:
    try:
        meta = read_file_meta_info(path)
        return Outgoing(path, meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID)
    except Exception:
        # Whatever a damaged head makes pydicom raise (EOFError, struct.error, ...): it holds up no other file.
        return Judgement(Outcome.REFUSED, "the result's file is gone or no DICOM file; run the series again")


def _not_accepted(item: Outgoing) -> Judgement:
    return Judgement(Outcome.NOT_ACCEPTED, not_accepted(item.sop_class, item.sop_class.name))


def _send(association: Association, item: Outgoing, number: int) -> Judgement:
    if not association.is_established:
        return Judgement(Outcome.RETRY, "the connection to the PACS was lost")
    accepted = {(context.abstract_syntax, context.transfer_syntax[0]) for context in association.accepted_contexts}
    syntaxes = {syntax for sop_class, syntax in accepted if sop_class == item.sop_class}
    if not syntaxes:
        return _not_accepted(item)
    message_id = (number - 1) % 65535 + 1
    try:
        # As it is on the disk where the PACS takes that; else pynetdicom writes it in the other plain syntax.
        what = item.path if item.transfer_syntax in syntaxes else dcmread(item.path)
        response = association.send_c_store(what, msg_id=message_id)
    except (RuntimeError, ValueError, OSError) as error:
        # RuntimeError: the association ended in between. ValueError: nothing accepted fits, or it cannot be encoded.
        lost = not association.is_established
        reason = "the connection to the PACS was lost" if lost else f"it cannot be sent ({type(error).__name__})"
        return Judgement(Outcome.RETRY if lost else Outcome.REFUSED, reason)
    except Exception as error:
        # One file must not hold up the batch for ever; so it counts as a try.
        return Judgement(Outcome.RETRY, f"it cannot be sent ({type(error).__name__})")
    return judge_status(response.Status if "Status" in response else None)
