"""A release shows what its policy shows, all of it, and proves it; nothing can be dropped, added or swapped."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from assay.disclose import check_against, check_model, check_previous, load_policy, open_sealed, sdjwt, verify
from assay.disclose.credential import TYPE, Draft, issue, item_of
from assay.disclose.items import assemble, cut
from assay.disclose.keys import new_signing_key, read_private, read_public
from assay.disclose.keys import read_recipients as recipients_of
from assay.disclose.seal import seal
from assay.errors import BadData, CorruptFile, LedgerBroken, NotVerified, PolicyTooLate, SealClosed
from assay.evidence import Audit, Effect, Ledger, Outcome, TableData, of_bytes, of_folder, read_findings
from assay.report import render_html
from tests.fixtures import audit_ledger as audit
from tests.fixtures.released import Office, office


@pytest.fixture
def at(tmp_path: Path) -> Office:
    return office(tmp_path)


def findings_of(run: Path):
    with Ledger.read(run / "ledger") as ledger:
        return read_findings(ledger)


# ── cutting and putting together ────────────────────────────────────────────────────────────────────────────────


def test_all_items_together_are_the_findings_again(at: Office):
    whole = findings_of(at.run)
    again = assemble(cut(whole), head=whole.head)
    assert [(t.threat, t.verdict, t.because) for t in again.threats] == [
        (t.threat, t.verdict, t.because) for t in whole.threats
    ]
    by_key = {found.claim.key: found for found in whole.claims}
    for found in again.claims:
        was = by_key[found.claim.key]
        assert found.claim == was.claim
        assert (found.standing, found.verdict, found.because) == (was.standing, was.verdict, was.because)
        assert found.outcome == was.outcome
        assert (found.correction is None) == (was.correction is None)
    assert (again.origin, again.notes, again.units, again.end, again.day) == (
        *(whole.origin, whole.notes, whole.units, whole.end, whole.day),
    )


def test_the_public_sees_verdicts_effects_and_controls_but_no_place(at: Office):
    shown = at.verified().findings
    assert [threat.verdict for threat in shown.threats] == ["supported", "not supported", "not testable"]
    decodes = next(found for found in shown.claims if found.claim.key == "decodes")
    assert decodes.outcome.effects == audit.decodes_outcome().effects
    assert decodes.outcome.controls == audit.decodes_outcome().controls
    assert [figure.kind for figure in decodes.outcome.figures] == ["null"], "the figure over layers is withheld"
    assert (decodes.claim.params, decodes.outcome.where, decodes.outcome.examples) == ({}, (), ())
    assert shown.units == ()
    text = at.release().read_text("ascii")
    told = json.dumps([one.value for one in map(sdjwt.Disclosure.read, text.split("~")[1:-1])])
    assert "layer 18" not in told
    assert '"layers"' not in told


def test_a_claim_whose_statement_names_a_place_is_withheld_whole(tmp_path: Path):
    at = office(tmp_path, ledger=False)
    named = audit.make_claim("at-13", "moves", "Pushing at L13.resid moves answers.")
    effect = Effect(name="slope", value=1, unit="", low=0, high=2, level=0.95, n=10)
    with Ledger.open(at.run / "ledger") as ledger:
        ledger.record(Audit(name="a", problem="deception", question="q", threats=audit.THREATS))
        for body in (load_policy("public"), load_policy("internal"), audit.ORIGIN, named):
            ledger.record(body)
        ledger.record(Outcome(claim=named.digest, verdict="supported", because="It does.", effects=(effect,)))
    shown = at.verified().findings
    assert shown.claims == ()
    moves = next(threat for threat in shown.threats if threat.threat.key == "moves")
    assert (moves.verdict, moves.because) == ("supported", "The claim that decides it is withheld.")
    assert len(at.verified("internal").findings.claims) == 1


# ── releasing ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_released_later_is_what_was_committed_to_first(at: Office):
    first, later = at.verified(), at.verified("internal")
    assert first.credential == later.credential
    assert {item.model_dump_json() for item in first.items} < {item.model_dump_json() for item in later.items}
    assert (later.withheld, len(later.items)) == (0, later.signed.claims_total)
    assert len({first.nonce, later.nonce, at.verified().nonce}) == 3


def test_the_account_names_signer_model_ledger_and_numbers(at: Office):
    sealed = at.seal()
    made = at.verified()
    with Ledger.read(at.run / "ledger") as ledger:
        assert made.signed.ledger == {"head": ledger.head, "entries": len(ledger.entries())}
    assert made.signed.model["fingerprint"] == audit.ORIGIN.fingerprint
    assert [one.policy.name for one in made.signed.policies] == ["public", "named-researchers", "internal"]
    assert [one.sha256 for one in made.signed.seals] == [of_bytes(sealed.read_bytes())]
    assert len(made.items) == made.policy.shows == made.signed.claims_total - made.withheld
    assert made.signed.iss.endswith(made.key)


def test_secrets_are_for_their_owner_alone(at: Office):
    at.seal()
    assert stat.S_IMODE((at.desk.home / "draft.json").stat().st_mode) == 0o600
    at.release()
    assert not (at.desk.home / "draft.json").exists()
    assert stat.S_IMODE((at.desk.home / "credential").stat().st_mode) == 0o600


def test_order_tells_nothing(at: Office):
    at.release()
    found = sdjwt.verify((at.desk.home / "credential").read_bytes(), at.public, typ=TYPE, bound=False)
    digests = [element["..."] for element in found.signed["claims"]]
    assert digests == sorted(digests)
    assert [one.digest for one in found.disclosures] == digests


def test_a_ledger_without_policies_or_without_that_one_is_refused(tmp_path: Path):
    at = office(tmp_path, ledger=False)
    with Ledger.open(at.run / "ledger") as ledger:
        for body in (Audit(name="a", problem="p", question="q", threats=audit.THREATS), audit.ORIGIN, audit.DECODES):
            ledger.record(body)
    with pytest.raises(PolicyTooLate, match="'public' was not in the ledger"):
        at.release()
    with Ledger.open(at.run / "ledger") as ledger:
        ledger.record(load_policy("public"))
        ledger.record(audit.decodes_outcome())
        ledger.record(load_policy("internal"))
    assert at.verified().policy.policy.name == "public"
    with pytest.raises(PolicyTooLate, match="'internal' was not in the ledger") as error:
        at.release("internal")
    assert error.value.hint.endswith("released by public")


def test_a_ledger_that_has_grown_is_signed_anew_and_linked(at: Office):
    old = at.release()
    before = at.verified()
    old_bytes = old.read_bytes()
    with Ledger.open(at.run / "ledger") as ledger:
        said = ledger.latest("outcome", audit.CAUSES.digest)
        ledger.correct(said, None, author="R. Reviewer", reason="the wrong prompts were read")
    with pytest.raises(BadData, match="has grown since it was signed"):
        at.release()
    anew = at.verified(anew=True)
    assert anew.signed.prev == before.credential
    check_previous(anew, old_bytes)
    with pytest.raises(NotVerified, match="does not follow"):
        check_previous(before, old_bytes)
    moves = next(threat for threat in anew.findings.threats if threat.threat.key == "moves")
    assert moves.verdict == "not testable"
    kept = [path.name for path in at.run.iterdir() if path.name.startswith("release-")]
    assert kept == [f"release-{before.credential[:12]}"]
    with Ledger.read(at.run / "ledger") as ledger:  # the old release still belongs to the ledger as it was
        check_against(before, ledger)
        check_against(anew, ledger)


def test_another_key_cannot_release_and_another_holder_is_named_first(at: Office):
    at.release()
    other = read_private(new_signing_key(at.files / "other")[0])
    with pytest.raises(BadData, match="another key signed"):
        at.desk.release("public", other)
    with pytest.raises(NotVerified):
        at.desk.release("internal", at.key, holder=other)
    assert not (at.desk.home / "internal.assay").exists()


def test_a_holder_signs_releases_that_the_auditors_key_verifies(at: Office):
    holder = read_private(new_signing_key(at.files / "desk")[0])
    made = at.verified(holder=holder)
    assert made.signed.cnf["jwk"] == holder.as_dict(private=False)


# ── verifying ───────────────────────────────────────────────────────────────────────────────────────────────────


def parts_of(path: Path) -> tuple[str, list[str], str]:
    jwt, *shown, binding = path.read_text("ascii").split("~")
    return jwt, shown, binding


def test_nothing_can_be_dropped_added_doubled_or_reordered(at: Office):
    path = at.release()
    jwt, shown, binding = parts_of(path)
    withheld = parts_of(at.desk.home / "credential")[1]
    extra = next(text for text in withheld if text not in shown)
    for changed in (shown[1:], [*shown, extra], [*shown, shown[0]], shown[::-1], []):
        with pytest.raises(NotVerified):
            verify("~".join((jwt, *changed, binding)), at.public, audience="public")
    with pytest.raises(NotVerified, match="without key binding"):
        verify("~".join((jwt, *shown, "")), at.public, audience="public")


def test_even_the_holder_cannot_leave_out_what_the_policy_shows(at: Office):
    jwt, shown, _ = parts_of(at.release())
    withheld = parts_of(at.desk.home / "credential")[1]
    extra = next(text for text in withheld if text not in shown)
    for chosen, found in ((shown[1:], "not everything is shown"), ([*shown[1:], extra], "its policy withholds")):
        text = sdjwt.present(jwt, chosen, holder=at.key, audience="public", nonce="n")
        with pytest.raises(NotVerified, match=found):
            verify(text, at.public, audience="public")


@pytest.mark.parametrize("to", ["internal", "public:alice", "press"])
def test_another_audience_is_refused(at: Office, to: str):
    with pytest.raises(NotVerified):
        verify(at.release().read_bytes(), at.public, audience=to)


def test_another_key_another_occasion_and_another_kind_of_token_are_refused(at: Office):
    path = at.release(nonce="asked for")
    other = read_public(new_signing_key(at.files / "other")[1])
    assert verify(path.read_bytes(), at.public, audience="public", nonce="asked for").nonce == "asked for"
    with pytest.raises(NotVerified):
        verify(path.read_bytes(), other, audience="public")
    with pytest.raises(NotVerified):
        verify(path.read_bytes(), at.public, audience="public", nonce="asked for later")
    with pytest.raises(NotVerified):
        verify((at.desk.home / "credential").read_bytes(), at.public, audience="public")


def test_an_addressee_is_part_of_what_is_signed(at: Office):
    path = at.desk.release("named-researchers", at.key, addressee="alice")
    made = verify(path.read_bytes(), at.public, audience="named-researchers:alice")
    assert made.policy.policy.name == "named-researchers"
    with pytest.raises(NotVerified):
        verify(path.read_bytes(), at.public, audience="named-researchers:bob")


def forged(at: Office, **changes: object) -> str:
    """A credential by the auditor's own key that says something else in the clear, released to the public."""
    whole = findings_of(at.run)
    draft = Draft.of(whole)
    payload = sdjwt.verify(sdjwt.present(issue(whole, draft, at.key), ()), at.public, typ=TYPE).signed
    jwt = sdjwt.sign({**payload, **changes}, at.key, typ=TYPE)
    shown = draft.for_audience(load_policy("public"))
    return sdjwt.present(jwt, shown, holder=at.key, audience="public", nonce="n")


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, ""),
        ({"claims_total": 70}, "contradicts itself"),
        ({"iss": "urn:somebody"}, "contradicts itself"),
        ({"jti": "x"}, "no audit"),
        ({"surprise": 1}, "no audit"),
        ({"policies": []}, "no audit"),
        ({"seals": [{"to": "a", "sha256": "0", "size": 1, "recipients": 2}]}, "no audit"),
    ],
)
def test_a_credential_that_contradicts_itself_is_refused_whoever_signed_it(at: Office, changes, found):
    text = forged(at, **changes)
    if not found:
        verify(text, at.public, audience="public")
        return
    with pytest.raises(NotVerified, match=found):
        verify(text, at.public, audience="public")


def test_the_model_is_the_one_that_was_audited(tmp_path: Path):
    at = office(tmp_path, ledger=False)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_bytes(b"w")
    (folder / "config").write_bytes(b"c")
    origin = audit.ORIGIN.model_copy(update=dict(model_files=of_folder(folder)))
    with Ledger.open(at.run / "ledger") as ledger:
        for body in (Audit(name="a", problem="p", question="q", threats=audit.THREATS), load_policy("public"), origin):
            ledger.record(body)
    made = at.verified()
    check_model(made, folder)
    (folder / "weights").rename(folder / "w")
    (folder / "config").rename(folder / "weights")
    (folder / "w").rename(folder / "config")
    with pytest.raises(NotVerified, match="not the files"):
        check_model(made, folder)


def test_against_its_ledger_every_claim_is_one_that_was_committed_to(at: Office, tmp_path: Path):
    made = at.verified()
    with Ledger.read(at.run / "ledger") as ledger:
        assert check_against(made, ledger) == made.signed.claims_total
    audit.write_audit(tmp_path / "short", until=20)
    with Ledger.read(tmp_path / "short") as ledger, pytest.raises(NotVerified, match="not the ledger that was signed"):
        check_against(made, ledger)
    with Ledger.open(at.run / "ledger") as ledger:
        ledger._database.execute("DROP TRIGGER no_update")
        ledger._database.execute("UPDATE entry SET body = replace(body, 'not supported', 'supported') WHERE seq = 30")
        with pytest.raises(LedgerBroken):
            check_against(made, ledger)


def test_a_second_story_under_the_same_head_is_found_out(at: Office):
    """The auditor signs other outcomes than the ledger has, and names its head."""
    whole = findings_of(at.run)
    fixed = [item for item in cut(whole) if item.part != "verdict"]
    verdicts = [
        item.model_copy(update=dict(value={**item.value, "verdict": "not supported"}))
        for item in cut(whole)
        if item.part == "verdict"
    ]
    made = sorted(
        (sdjwt.Disclosure.make(item.model_dump(mode="json", exclude_defaults=True)) for item in (*fixed, *verdicts)),
        key=lambda one: one.digest,
    )
    draft = Draft("0" * 32, tuple(made))
    jwt = issue(whole, draft, at.key)
    text = sdjwt.present(jwt, draft.for_audience(load_policy("public")), holder=at.key, audience="public", nonce="n")
    told = verify(text, at.public, audience="public")
    with Ledger.read(at.run / "ledger") as ledger, pytest.raises(NotVerified, match="does not say what was signed"):
        check_against(told, ledger)


# ── seals ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_seal_opens_for_each_of_its_recipients_and_shows_what_was_committed_to(at: Office):
    sealed = at.seal()
    made = at.verified()
    for identity in at.identities:
        opened, named = open_sealed(sealed.read_bytes(), made, at.public, [identity])
        assert named == made.signed.seals[0]
        assert len(opened.items) == opened.policy.shows > len(made.items)
        later = next(found for found in opened.findings.claims if found.claim.key == "late-layers")
        assert later.claim.params == audit.LATER.params
    other = office(at.files / "elsewhere", ledger=False)
    with pytest.raises(SealClosed):
        open_sealed(sealed.read_bytes(), made, at.public, other.identities)


def test_a_seal_made_after_the_signature_is_proved_by_its_contents(at: Office):
    made = at.verified()
    opened, named = open_sealed(at.seal("internal").read_bytes(), made, at.public, at.identities[:1])
    assert named is None
    assert opened.withheld == 0


def test_a_seal_of_another_audit_or_with_something_uncommitted_is_refused(at: Office, tmp_path: Path):
    made = at.verified()
    other = office(tmp_path / "other")
    theirs = other.desk.seal("internal", recipients_of([at.identities[0].recipient, at.identities[1].recipient]))
    other.release()
    with pytest.raises(NotVerified, match="another audit"):
        open_sealed(theirs.read_bytes(), made, at.public, at.identities)
    item = next(item for item in map(item_of, map(sdjwt.Disclosure.read, parts_of(at.desk.home / "credential")[1])))
    slipped = sdjwt.Disclosure.make(item.model_dump(mode="json"))
    for content in (
        {"audit": made.signed.jti, "to": "internal", "disclosures": [slipped.text]},
        {"audit": made.signed.jti, "to": "nobody", "disclosures": []},
        {"audit": made.signed.jti, "to": "internal", "disclosures": []},
        {"to": "internal"},
        [1],
    ):
        data = seal(json.dumps(content).encode(), recipients_of([one.recipient for one in at.identities]))
        with pytest.raises(NotVerified):
            open_sealed(data, made, at.public, at.identities)


def test_a_seal_is_made_once(at: Office):
    at.seal()
    with pytest.raises(BadData, match="there is a seal"):
        at.seal()


def test_a_damaged_draft_is_refused_before_anything_is_signed(at: Office):
    at.seal()
    (at.desk.home / "draft.json").write_text('{"jti": 3}')
    with pytest.raises(CorruptFile, match="is no draft"):
        at.release()
    assert not (at.desk.home / "credential").exists()


def test_a_credential_that_has_lost_an_item_releases_nothing(at: Office):
    at.release()
    kept = at.desk.home / "credential"
    jwt, *items, last = kept.read_text("ascii").split("~")
    kept.write_text("~".join((jwt, *items[1:], last)))
    with pytest.raises(NotVerified, match="has lost items"):
        at.release()


def test_tables_of_words_and_rows_are_shown_to_whom_examples_are(tmp_path: Path) -> None:
    audit.write_audit(tmp_path / "ledger")
    with Ledger.read(tmp_path / "ledger") as ledger:
        whole = read_findings(ledger)
    told = next(one for one in whole.claims if one.outcome is not None and one.claim.about == "representation")
    assert told.outcome is not None
    words = tuple(
        TableData(title=title, columns=("first", "second"), rows=(("wolf", "lamb"),))
        for title in ("Words", "More words")
    )
    marked = replace(told, outcome=told.outcome.model_copy(update={"read_first": words}))
    threats = tuple(
        replace(view, claims=tuple(marked if one is told else one for one in view.claims)) for view in whole.threats
    )
    items = cut(replace(whole, threats=threats))
    seen = {}
    for name in ("public", "named-researchers"):
        shown = assemble([item for item in items if item.shown_by(load_policy(name))], head=whole.head)
        again = next(one for one in shown.claims if one.claim.key == told.claim.key)
        assert again.outcome is not None
        seen[name] = again.outcome.read_first
        assert ("wolf" in render_html(shown)) is (name == "named-researchers")
    assert seen == {"public": (), "named-researchers": words}
