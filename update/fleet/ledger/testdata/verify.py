#!/usr/bin/python3
"""A second verifier of a fleet's ledger, written from the page `kogge help ledger-file`.

    verify.py GENESIS LEDGER [GENESIS LEDGER]...

GENESIS is the genesis that is trusted, LEDGER what `kogge ledger export` writes. It prints a line for
each ledger: "accept HEIGHT" and the state, or "refuse HEIGHT: FIELD: WHY", and ends with 1 if it has
refused one. It needs Debian's python3 and python3-cryptography.

It shares nothing with kogge but that page: whoever changes one of them changes neither the other nor
this file to make a test pass before it is known which of them is right.
"""

import base64
import hashlib
import ipaddress
import json
import re
import sys

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


class Refused(Exception):
    """Why a ledger is refused: a field, and what is wrong with it."""


def want(ok, field, why):
    if not ok:
        raise Refused(f"{field}: {why}")


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


# ---- Documents -----------------------------------------------------------------------------------
#
# A type reads a JSON value as json.loads gives it, with objects as lists of pairs (class Pairs), and
# makes such a value again. A document is then one whose text is that of the value.

ZERO = bytes(32)


class Pairs(list):
    """A JSON object: its fields in order, also those that are there twice."""


class Scalar:
    def __init__(self, read, zero, show=lambda v: v):
        self.read, self.zero, self.show = read, zero, show


class List:
    zero = []

    def __init__(self, element):
        self.element = element

    def read(self, v, field):
        want(type(v) is list, field, "not a list")
        return [self.element.read(e, f"{field}[{i}]") for i, e in enumerate(v)]

    def show(self, v):
        return [self.element.show(e) for e in v]


class Object:
    zero = None

    def __init__(self, *fields):
        """Each field is its name, with a ? behind it if it may be left out, and a type."""
        self.fields = [(name.rstrip("?"), name.endswith("?"), kind) for name, kind in fields]

    def read(self, v, field):
        want(type(v) is Pairs, field, "not an object")
        out, left = {}, list(v)
        for name, optional, kind in self.fields:
            at = f"{field}.{name}" if field else name
            if left and left[0][0] == name:
                out[name] = kind.read(left.pop(0)[1], at)
                want(not optional or out[name] != kind.zero, at, "it is empty, and is to be left out")
            else:
                want(optional, at, "it is missing, or not at its place")
                out[name] = kind.zero
        want(not left, field or "document", f"a field too many: {left[:1]}"[:80])
        return out

    def show(self, v):
        return Pairs((name, kind.show(v[name])) for name, optional, kind in self.fields if not optional or v[name] != kind.zero)


ESCAPES = {ord(c): e for c, e in zip('"\\\b\f\n\r\t', ('\\"', "\\\\", "\\b", "\\f", "\\n", "\\r", "\\t"))}
for c in [*range(0x20), *map(ord, "<>&"), 0x2028, 0x2029]:
    ESCAPES.setdefault(c, f"\\u{c:04x}")


def spell(v, indent=""):
    """The one spelling of a JSON value."""
    inner = indent + "  "
    if isinstance(v, Pairs):
        rows = [spell(name) + ": " + spell(value, inner) for name, value in v]
        left, right = "{}"
    elif isinstance(v, list):
        rows = [spell(e, inner) for e in v]
        left, right = "[]"
    elif isinstance(v, str):
        return '"' + v.translate(ESCAPES) + '"'
    else:
        return str(v) if type(v) is int else json.dumps(v)  # else true, false, null
    if not rows:
        return left + right
    return left + "\n" + ",\n".join(inner + row for row in rows) + "\n" + indent + right


def document(kind, raw, field="document"):
    """Reads a document of a type."""
    try:
        tree = json.loads(raw.decode("utf-8"), object_pairs_hook=Pairs)
    except (ValueError, RecursionError) as e:
        raise Refused(f"{field}: not JSON: {e}") from None
    value = kind.read(tree, "")
    try:
        again = (spell(tree) + "\n").encode("utf-8")
    except UnicodeEncodeError:
        again = b""
    want(again == raw, field, "it is spelled in another way")
    return value


def encode(kind, value):
    return (spell(kind.show(value)) + "\n").encode("utf-8")


# ---- Types of fields -----------------------------------------------------------------------------


def text(v, field):
    want(type(v) is str, field, "not text")
    return v


def matching(pattern, why):
    pattern = re.compile(pattern)

    def read(v, field):
        want(pattern.fullmatch(text(v, field)), field, why)
        return v

    return read


def number(lo=-(2**63), hi=2**63 - 1):
    def read(v, field):
        want(type(v) is int and lo <= v <= hi, field, f"not a number from {lo} to {hi}")
        return v

    return Scalar(read, 0)


def exactly(n):
    return number(n, n)


def choice(*words):
    def read(v, field):
        want(text(v, field) in words, field, f"none of {', '.join(words)}")
        return v

    return Scalar(read, "")


def read_bool(v, field):
    want(type(v) is bool, field, "neither true nor false")
    return v


def read_hash(v, field):
    want(re.fullmatch(r"(?:[0-9a-f]{64})?", text(v, field)), field, "not a hash")
    want(v != "0" * 64, field, "the zero hash is written as nothing")
    return bytes.fromhex(v) or ZERO


def read_bytes(v, field):
    if v is None:
        return None
    try:
        raw = base64.b64decode(text(v, field), validate=True)
    except ValueError:
        raise Refused(f"{field}: not base64") from None
    want(base64.b64encode(raw).decode() == v, field, "base64 in another spelling")
    return raw


def sized(lo, hi):
    def read(v, field):
        raw = read_bytes(v, field)
        want(raw is not None and lo <= len(raw) <= hi, field, f"not {lo} to {hi} bytes")
        return raw

    return Scalar(read, b"", show_bytes)


def show_bytes(v):
    return None if v is None else base64.b64encode(v).decode()


PRIME = 2**255 - 19
SMALL_ORDER = {
    0, 1, PRIME - 1,
    0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
    0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
}


def check_key(raw, field):
    want(raw is not None and len(raw) == 33 and raw[0] == 1, field, "not an Ed25519 key")
    y = int.from_bytes(raw[1:], "little") % 2**255
    want(y < PRIME, field, "a key that is not canonical")
    want(y not in SMALL_ORDER, field, "a key of small order")
    return raw


def read_id(v, field):
    want(re.fullmatch(r"[0-9a-f]{32}", text(v, field)) and v != "0" * 32, field, "not an id")
    return v


UNPRINTABLE = [
    [int(end, 16) for end in (span + "-" + span).split("-")[:2]]
    for span in (
        "0-1f 7f-a0 ad 600-605 61c 6dd 70f 890-891 8e2 1680 180e 2000-200f 2028-202f 205f-206f 3000 d800-f8ff fdd0-fdef feff fff0-fffb"
        " fffd-ffff 110bd 110cd 13430-1343f 1bca0-1bca3 1d173-1d17a dfffe-10ffff " + " ".join(f"{plane:x}fffe-{plane:x}ffff" for plane in range(1, 13))
    ).split()
]


def read_line(v, field):
    want(len(text(v, field).encode("utf-8", "surrogatepass")) <= 200, field, "more than 200 bytes")
    for c in v:
        want(not any(first <= ord(c) <= last for first, last in UNPRINTABLE), field, "a character that cannot be shown")
    return v


TIME = re.compile(r"(?:([1-9][0-9]*)h(?=[0-9]+m))?(?:(0|[1-9][0-9]?)m)?(0|[1-9][0-9]?)(?:\.([0-9]{0,8}[1-9]))?s")


def read_time(v, field):
    """A time, in nanoseconds."""
    m = TIME.fullmatch(text(v, field))
    want(m and len(v) < 40, field, "not a time")
    h, minutes, s, fraction = m.groups()
    want(int(minutes or 0) < 60 and int(s) < 60 and (h or minutes != "0"), field, "a time in another spelling")
    return ((int(h or 0) * 60 + int(minutes or 0)) * 60 + int(s)) * 10**9 + int((fraction or "").ljust(9, "0"))


def show_time(v):
    s, fraction = divmod(v, 10**9)
    m, s = divmod(s, 60)
    h, m = divmod(m, 60)
    end = f".{fraction:09d}".rstrip("0") if fraction else ""
    return (f"{h}h" if h else "") + (f"{m}m" if h or m else "") + f"{s}{end}s"


def check_address(a, v, field):
    want(str(a) == v and not getattr(a, "scope_id", None), field, "an address in another spelling, or of one link")
    want(not (a.is_loopback or a.is_link_local or a.is_multicast or a.is_unspecified), field, "an address that is not one node's for all")
    want(v != "255.255.255.255" and not getattr(a, "ipv4_mapped", None), field, "an address that is not one node's for all")


def read_address(v, field):
    try:
        a = ipaddress.ip_address(text(v, field))
    except ValueError:
        raise Refused(f"{field}: not an address") from None
    check_address(a, v, field)
    return v


def read_socket(v, field):
    m = re.fullmatch(r"(?:\[(.*:.*)\]|([^:\[\]]*)):([1-9][0-9]{0,4})", text(v, field))
    want(m and int(m[3]) < 65536, field, "not an address and a port")
    read_address(m[1] or m[2], field)
    return v


TEXT, BOOL, HASH, ID = Scalar(text, ""), Scalar(read_bool, False), Scalar(read_hash, ZERO, lambda v: v.hex() if v != ZERO else ""), Scalar(read_id, "")
NAME = Scalar(matching(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", "not a name"), "")
HANDLE = Scalar(matching(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?", "not a name"), "")
BYTES = Scalar(read_bytes, b"", show_bytes)
KEY = Scalar(lambda v, field: check_key(read_bytes(v, field), field), b"", show_bytes)
TIME_T, LINE, ADDRESS, SOCKET = Scalar(read_time, 0, show_time), Scalar(read_line, ""), Scalar(read_address, ""), Scalar(read_socket, "")
N, POSITIVE, CA_BYTES = number(), number(1), sized(1, 2048)
SIGNATURES = List(Object(("by", POSITIVE), ("signature", sized(64, 64))))

OWNER = Object(("name", NAME), ("keys", List(KEY)), ("threshold", N))
SEAT = Object(
    ("number", POSITIVE), ("name", NAME), ("key", KEY), ("journal", ID), ("owner", TEXT),
    ("vote?", BOOL), ("member?", BOOL), ("spare?", BOOL), ("domain?", HANDLE),
)
ROSTER = Object(("version", exactly(1)), ("rule", choice("majority", "two-thirds")), ("owners", List(OWNER)), ("seats", List(SEAT)), ("given", N))
POLICY = Object(
    ("canaries", number(1, 100)), ("steps", List(N)), ("bake", TIME_T), ("lastBake", TIME_T), ("lastStep", number(1, 100)),
    ("emergency", Object(("bake", TIME_T), ("lastBake", TIME_T))), ("maxUnavailable", number(1, 1000)), ("redraws", number(0, 10)),
    ("queue", TIME_T), ("grace", TIME_T), ("undecided", TIME_T), ("breakGlass", TIME_T), ("propose", choice("operator", "admin")),
    ("votes", number(1, 1000)), ("trial?", BOOL),
)
GENESIS = Object(
    ("version", exactly(2)), ("name", NAME), ("random", sized(32, 32)), ("owners", List(sized(32, 32))), ("threshold", N),
    ("operatorCA", sized(1, 65536)), ("nodeCA", sized(1, 65536)), ("firstOperator", sized(91, 91)),
    ("policy", POLICY), ("tufRoot?", HASH), ("predecessor?", HASH),
)
RECORD = Object(("version", exactly(1)), ("fleet", HASH), ("height", N), ("previous", HASH), ("roster", HASH), ("value", HASH))
CERTIFICATE = Object(
    ("version", number(1, 2)), ("round?", number(0, 2**31 - 1)), ("seats?", SIGNATURES), ("owners?", SIGNATURES), ("evidence?", List(BYTES)),
)
OPERATOR = Object(("name", HANDLE), ("role", choice("reader", "operator", "admin")), ("key", HASH))
NUMBERS = List(POSITIVE)
KINDS = {
    "founding": Object(("roster", ROSTER), ("operators", List(OPERATOR)), ("cluster", List(Object(("seat", N), ("address", SOCKET))))),
    "operators": Object(("set?", List(OPERATOR)), ("remove?", List(HANDLE))),
    "seat": Object(("seats", List(SEAT)), ("owners?", List(OWNER)), ("rule?", choice("two-thirds"))),
    "unseat": Object(("seats", NUMBERS), ("members?", NUMBERS), ("ca?", CA_BYTES)),
    "replace": Object(("old", POSITIVE), ("new", SEAT), ("ca?", CA_BYTES)),
    "isolate": Object(("seats", NUMBERS), ("lift?", BOOL)),
    "policy": POLICY,
    "rule": Object(("rule", choice("majority"))),
    "tufRoot": Object(("number", number(1, 2**30)), ("root", HASH)),
    "ca": Object(("certificate", CA_BYTES)),
    "members": Object(("members", NUMBERS), ("spares?", NUMBERS)),
    "owners": Object(("owner", OWNER), ("lost?", BOOL)),
    "settle": Object(("record", HASH), ("veto?", BOOL)),
    "doubleVote": Object(("seat", POSITIVE)),
    "breakGlass": Object(("roster", ROSTER), ("ca?", CA_BYTES)),
}
VALUE = Object(("version", exactly(1)), ("evidence?", HASH), *((kind + "?", form) for kind, form in KINDS.items()))
PROPOSAL = Object(("version", exactly(1)), ("height", POSITIVE), ("value", sized(1, 40960)), ("why?", LINE))
ANSWER = Object(
    ("version", exactly(1)), ("proposal", HASH), ("owner", NAME), ("yes", BOOL), ("number", number(1, 2**53)), ("why?", LINE),
    ("signatures", SIGNATURES),
)
OPINION = Object(("version", exactly(1)), ("proposal", HASH), ("height", POSITIVE), ("valid", BOOL), ("ready", BOOL), ("why?", List(LINE)))
REQUEST = Object(
    ("version", exactly(1)), ("nonce", BYTES), ("name", NAME), ("journal", ID), ("tlsKey", HASH), ("arch", TEXT),
    ("height", number(0)), ("head?", HASH), ("problem?", TEXT), ("addresses?", List(ADDRESS)),
)


def rising(values, field):
    for i in range(1, len(values)):
        want(values[i - 1] < values[i], f"{field}[{i}]", "it does not follow on the one before")


# ---- Keys, signatures, messages ------------------------------------------------------------------


def message(*fields):
    return b"".join(len(f).to_bytes(4, "big") + f for f in fields)


def fields_of(raw, n):
    """The first n fields of a message, and what is behind them; None: there are not so many."""
    out = []
    for _ in range(n):
        size = int.from_bytes(raw[:4], "big")
        if len(raw) < 4 + size:
            return None
        out.append(raw[4 : 4 + size])
        raw = raw[4 + size :]
    return out, raw


def u32(n):
    return n.to_bytes(4, "big")


def u64(n):
    return n.to_bytes(8, "big")


def verify(key, data, signature, field):
    try:
        if key[0] == 1:
            Ed25519PublicKey.from_public_bytes(key[1:]).verify(signature, data)
        else:
            r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
            ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), key[1:]).verify(
                utils.encode_dss_signature(r, s), data, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError):
        raise Refused(f"{field}: the signature does not fit") from None


def check_signer(key, field):
    if len(key) == 66 and key[0] == 2:
        try:
            want(key[1] == 4, field, "not an uncompressed point")
            ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), key[1:])
        except ValueError:
            raise Refused(f"{field}: not a point of P-256") from None
    else:
        check_key(key, field)


SPKI = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")


def check_signatures(list_, field):
    rising([s["by"] for s in list_], field)


def by_owner(list_, owner, needed, data, field):
    """At least so many signatures by keys of an owner."""
    for i, s in enumerate(list_):
        want(s["by"] <= len(owner["keys"]), f"{field}[{i}].by", "there is no such key")
        verify(owner["keys"][s["by"] - 1], data, s["signature"], f"{field}[{i}].signature")
    want(len(list_) >= needed, field, f"{len(list_)} signatures, and {needed} are needed")


def parse_ca(der, field):
    """A CA certificate: SubjectPublicKeyInfo, and what a node CA is asked for."""
    try:
        c = x509.load_der_x509_certificate(der)
        key = c.public_key()
        want(isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp256r1", field, "its key is not on P-256")
        want(c.signature_algorithm_oid.dotted_string == "1.2.840.10045.4.3.2", field, "not signed with ECDSA and SHA-256")
        want(c.extensions.get_extension_for_class(x509.BasicConstraints).value.ca, field, "not a CA")
        want(c.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign, field, "it signs no certificates")
        key.verify(c.signature, c.tbs_certificate_bytes, ec.ECDSA(hashes.SHA256()))
    except Refused:
        raise
    except Exception as e:  # the library has many, and whatever it cannot read is none
        raise Refused(f"{field}: not a CA certificate: {e!r}") from None
    return {"key": key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo), "end": c.not_valid_after, **parts_of(c)}


def parts_of(c):
    """Issuer, subject, serial number and extensions of a certificate, as they are written."""
    _, tbs, _, _ = der(c.tbs_certificate_bytes)
    fields = elements(tbs)
    version, serial, _, issuer, _, subject = fields[:6] if fields[0][0] == 0xA0 else [None, *fields[:5]]
    extensions = []
    for _, extension, _ in (e for f in fields[6:] if f[0] == 0xA3 for e in elements(elements(f[1])[0][1])):
        oid, *critical, value = elements(extension)
        extensions.append((oid[1], bool(critical), value[1]))
    return {"issuer": issuer[2], "subject": subject[2], "serial": int.from_bytes(serial[1], "big", signed=True), "extensions": extensions}


def der(raw):
    """The first element of DER: its tag, content, all of it, and what is behind it."""
    size, at = raw[1], 2
    if size >= 0x80:
        at += size - 0x80
        size = int.from_bytes(raw[2:at], "big")
    return raw[0], raw[at : at + size], raw[: at + size], raw[at + size :]


def elements(raw):
    out = []
    while raw:
        tag, content, whole, raw = der(raw)
        out.append((tag, content, whole))
    return out


NODE_CA = [  # extensions, by object id
    (bytes.fromhex("551d0f"), True, bytes.fromhex("03020204")),
    (bytes.fromhex("551d25"), False, bytes.fromhex("301406082b0601050507030106082b06010505070302")),
    (bytes.fromhex("551d13"), True, bytes.fromhex("30060101ff020101")),
]


def parse_node_ca(raw, genesis_subject, end, field):
    c = parse_ca(raw, field)
    want(c["issuer"] == c["subject"] == genesis_subject, field, "it has another name")
    want(c["end"] >= end, field, "it ends before the one before")
    want(0 < c["serial"] < 2**160, field, "its serial number is none")
    want(len(c["extensions"]) == 4 and c["extensions"][:3] == NODE_CA, field, "other extensions")
    oid, critical, value = c["extensions"][3]
    want(oid == bytes.fromhex("551d0e") and not critical and len(value) == 22 and value[:2] == b"\x04\x14", field, "another extension")
    return c


# ---- Merkle tree ---------------------------------------------------------------------------------


def leaf(raw):
    return sha256(b"\0", raw)


def node(left, right):
    return sha256(b"\1", left, right)


def grow(peaks, hash_):
    """Whole trees of falling size, each as its size and root, with a leaf more."""
    size = 1
    while peaks and peaks[-1][0] == size:
        hash_, size, peaks = node(peaks[-1][1], hash_), 2 * size, peaks[:-1]
    return peaks + ((size, hash_),)


def root(peaks):
    if not peaks:
        return sha256()
    out = peaks[-1][1]
    for _, hash_ in reversed(peaks[:-1]):
        out = node(hash_, out)
    return out


# ---- Genesis -------------------------------------------------------------------------------------

SECOND, MINUTE, HOUR, DAY = 10**9, 60 * 10**9, 3600 * 10**9, 86400 * 10**9


def check_policy(p, field):
    steps, e = p["steps"], p["emergency"]
    want(2 <= len(steps) <= 20, f"{field}.steps", "not 2 to 20 steps")
    rising(steps, f"{field}.steps")
    want(1 <= steps[0] <= 50 and steps[-1] == 100, f"{field}.steps", "not from 1 to 50 up to 100")
    for name, is_, lo, hi in (
        ("bake", p["bake"], 10 * MINUTE, 30 * DAY), ("lastBake", p["lastBake"], p["bake"], 90 * DAY),
        ("emergency.bake", e["bake"], 5 * MINUTE, 30 * DAY), ("emergency.lastBake", e["lastBake"], e["bake"], 90 * DAY),
        ("queue", p["queue"], DAY, 365 * DAY), ("grace", p["grace"], MINUTE, DAY),
        ("undecided", p["undecided"], HOUR, 365 * DAY), ("breakGlass", p["breakGlass"], 3 * DAY, 365 * DAY),
    ):
        want((SECOND if p["trial"] else lo) <= is_ <= hi, f"{field}.{name}", "beyond its limits")
    want(p["undecided"] >= 2 * max(p["bake"], e["bake"]), f"{field}.undecided", "less than twice the bake")


def begin(raw):
    """The state before record 1."""
    want(len(raw) <= 65536, "genesis", "more than 65536 bytes")
    g = document(GENESIS, raw)
    want(1 <= len(g["owners"]) <= 16 and len(set(g["owners"])) == len(g["owners"]), "owners", "not 1 to 16, each once")
    keys = [check_key(b"\1" + k, f"owners[{i}]") for i, k in enumerate(g["owners"])]
    want(1 <= g["threshold"] <= len(keys), "threshold", "not 1 to the number of owners")
    operator_ca, node_ca = parse_ca(g["operatorCA"], "operatorCA"), parse_ca(g["nodeCA"], "nodeCA")
    want(operator_ca["key"] != node_ca["key"], "nodeCA", "it has the key of the operator CA")
    first = g["firstOperator"]
    want(first.startswith(SPKI), "firstOperator", "not a key on P-256")
    check_signer(b"\2" + first[len(SPKI) :], "firstOperator")
    check_policy(g["policy"], "policy")
    return {
        "fleet": sha256(raw), "name": g["name"], "founder": {"name": g["name"], "keys": keys, "threshold": g["threshold"]},
        "first": sha256(first), "trial": g["policy"]["trial"], "operatorCA": operator_ca["key"],
        "height": 0, "record": ZERO, "peaks": (), "roster": None, "rosterHash": ZERO, "operators": [], "policy": g["policy"],
        "tufRoot": g["tufRoot"], "tufNumber": 0, "nodeCA": node_ca, "nodeCAName": node_ca["subject"], "formerCAs": [], "knowCA": set(), "isolated": [], "barred": [],
        "awaited": [], "seated": 0, "claim": None, "brokenGlass": 0, "decided": frozenset(),
    }


# ---- Roster --------------------------------------------------------------------------------------


def votes(r):
    return sum(s["vote"] for s in r["seats"])


def quorum(r):
    return votes(r) // 2 + 1 if r["rule"] == "majority" else 2 * votes(r) // 3 + 1


def liars(r):
    return 0 if r["rule"] == "majority" else (votes(r) - 1) // 3


def seat_of(r, number_):
    return next((s for s in r["seats"] if s["number"] == number_), None)


def owner_of(r, name):
    return next((o for o in r["owners"] if o["name"] == name), None)


def members_of(r):
    return [s["number"] for s in r["seats"] if s["member"]]


def custodians(r):
    return {s["number"] for s in r["seats"] if s["member"] or s["spare"]}


def check_roster(r, field):
    owners, seats = r["owners"], r["seats"]
    want(1 <= len(owners) <= 1000, f"{field}.owners", "not 1 to 1000")
    rising([o["name"].encode() for o in owners], f"{field}.owners")
    for i, o in enumerate(owners):
        want(1 <= len(o["keys"]) <= 16 and len(set(o["keys"])) == len(o["keys"]), f"{field}.owners[{i}].keys", "not 1 to 16, each once")
        want(1 <= o["threshold"] <= len(o["keys"]), f"{field}.owners[{i}].threshold", "not 1 to the number of keys")
    want(len(seats) <= 16384, f"{field}.seats", "more than 16384")
    rising([s["number"] for s in seats], f"{field}.seats")
    for once in ("name", "key", "journal"):
        want(len({s[once] for s in seats}) == len(seats), f"{field}.seats", f"two have the same {once}")
    of_owners, names = {k for o in owners for k in o["keys"]}, {o["name"] for o in owners}
    for i, s in enumerate(seats):
        want(s["key"] not in of_owners, f"{field}.seats[{i}].key", "it is an owner's")
        want(s["owner"] in names, f"{field}.seats[{i}].owner", "there is no such owner")
        want(not (s["member"] and s["spare"]), f"{field}.seats[{i}].spare", "it is a member")
    want(max((s["number"] for s in seats), default=0) <= r["given"] <= 2**30, f"{field}.given", "beyond its limits")
    want(1 <= votes(r) <= (3 if r["rule"] == "majority" else 1000), f"{field}.rule", "not so many votes")
    want(len(members_of(r)) in (0, 1, 3, 5), f"{field}.seats", "0, 1, 3 or 5 run etcd")


def with_seats(r, seats):
    numbers = {s["number"] for s in seats}
    all_ = sorted([s for s in r["seats"] if s["number"] not in numbers] + seats, key=lambda s: s["number"])
    return {**r, "seats": all_, "given": max([r["given"], *numbers])}


def without_seats(r, numbers):
    return {**r, "seats": [s for s in r["seats"] if s["number"] not in numbers]}


def with_owners(r, owners):
    names = {o["name"] for o in owners}
    return {**r, "owners": sorted([o for o in r["owners"] if o["name"] not in names] + owners, key=lambda o: o["name"].encode())}


def only_owners(r, always):
    has = {always} | {s["owner"] for s in r["seats"]}
    return {**r, "owners": [o for o in r["owners"] if o["name"] in has]}


def plain(seat):
    return {**seat, "member": False, "spare": False}


def changed(before, after):
    out = []
    for s in before["seats"]:
        now = seat_of(after, s["number"])
        if now is None or plain(now) != plain(s):
            out.append(s["number"])
    return out + [s["number"] for s in after["seats"] if s["vote"] and seat_of(before, s["number"]) is None]


# ---- Decisions: each takes the state before and what is decided, and gives the state after -------


def new_roster(s, r, field):
    check_roster(r, field)
    want(votes(r) <= s["policy"]["votes"], field, "more votes than the policy allows")
    want(not any(seat["vote"] and seat["key"] in s["barred"] for seat in r["seats"]), field, "a key that is barred gets a vote")
    want(members_of(r) or not members_of(s["roster"]), field, "no member is left")
    claim = s["claim"]
    if claim and owner_of(r, claim["owner"]["name"]) is None:
        claim = None
    want(not claim or not any(seat["key"] in claim["owner"]["keys"] for seat in r["seats"]), field, "a key that an owner waits for")
    there = {seat["number"] for seat in r["seats"]}
    voting = {seat["number"] for seat in r["seats"] if seat["vote"]}
    voted = {seat["number"] for seat in s["roster"]["seats"] if seat["vote"]}
    return {
        **s, "roster": r, "rosterHash": sha256(encode(ROSTER, r)), "claim": claim,
        "knowCA": custodians(r) | s["knowCA"] & there, "isolated": [n for n in s["isolated"] if n in there],
        "awaited": sorted((set(s["awaited"]) & voting) | (voting - voted)), "seated": s["height"] + 1 if voting - voted else s["seated"],
    }


def bounded_change(s, r, field):
    n = votes(s["roster"])
    most = n // 10 if n >= 10 else max(1, liars(s["roster"]))
    want(len(changed(s["roster"], r)) <= most, field, f"it changes more than {most} seats")
    return new_roster(s, r, field)


def with_ca(s, der, field):
    ca = parse_node_ca(der, s["nodeCAName"], s["nodeCA"]["end"], field)
    want(ca["key"] not in [s["operatorCA"], s["nodeCA"]["key"], *s["formerCAs"]], field, "a CA of the fleet has, or had, this key")
    return {**s, "nodeCA": ca, "formerCAs": [*s["formerCAs"], s["nodeCA"]["key"]][-16:], "knowCA": custodians(s["roster"])}


def ca_anew(s, der, leave, field):
    has = bool(s["knowCA"] & set(leave))
    want(has == bool(der), field, "a CA is missing" if has else "a CA that nobody needs")
    return with_ca(s, der, field) if has else s


def cut_off(s):
    """Whether members are isolated, and half of them or more."""
    all_ = members_of(s["roster"])
    cut = set(all_) & set(s["isolated"])
    return bool(cut) and 2 * len(cut) >= len(all_)


def not_cut_off(s, after, field):
    want(cut_off(s) or not cut_off(after), field, "then half of the members or more are isolated")
    return after


def all_there(s, numbers, field):
    rising(numbers, field)
    for i, n in enumerate(numbers):
        want(seat_of(s["roster"], n), f"{field}[{i}]", "there is no such seat")


def with_operators(s, operators):
    want(len(operators) <= 1000, "operators", "more than 1000")
    want(len({o["key"] for o in operators}) == len(operators), "operators", "two have one key")
    want(any(o["role"] == "admin" for o in operators), "operators", "no admin is left")
    return {**s, "operators": operators}


def check_operators(operators, field):
    want(len(operators) <= 1000, field, "more than 1000")
    rising([o["name"].encode() for o in operators], field)
    for i, o in enumerate(operators):
        want(o["key"] != ZERO, f"{field}[{i}].key", "there is none")


def founding(s, d):
    r = d["roster"]
    check_roster(r, "founding.roster")
    check_operators(d["operators"], "founding.operators")
    want(r["owners"] == [s["founder"]], "founding.roster.owners", "not the genesis' owner")
    n = len(r["seats"])
    want(r["given"] == n and r["seats"][-1]["number"] == n, "founding.roster.seats", "not numbered from 1 without gaps")
    want(r["rule"] == ("majority" if votes(r) < 4 else "two-thirds"), "founding.roster.rule", "another one is wanted")
    want(votes(r) <= s["policy"]["votes"], "founding.roster.seats", "more votes than the policy allows")
    want(d["cluster"] and [c["seat"] for c in d["cluster"]] == members_of(r), "founding.cluster", "not a line for each member")
    want(len({c["address"] for c in d["cluster"]}) == len(d["cluster"]), "founding.cluster", "two are the same")
    want(any(o["key"] == s["first"] and o["role"] == "admin" for o in d["operators"]), "founding.operators", "the first operator is no admin")
    return with_operators({**s, "roster": r, "rosterHash": sha256(encode(ROSTER, r)), "knowCA": custodians(r)}, d["operators"])


def operators(s, d):
    want(d["set"] or d["remove"], "operators", "nothing is changed")
    check_operators(d["set"], "operators.set")
    rising([name.encode() for name in d["remove"]], "operators.remove")
    listed = {o["name"]: o for o in s["operators"]}
    for i, name in enumerate(d["remove"]):
        want(all(o["name"] != name for o in d["set"]), f"operators.remove[{i}]", "it is set, too")
        want(name in listed, f"operators.remove[{i}]", "there is no such operator")
        del listed[name]
    listed.update((o["name"], o) for o in d["set"])
    return with_operators(s, sorted(listed.values(), key=lambda o: o["name"].encode()))


def seat(s, d):
    want(1 <= len(d["seats"]) <= 1000, "seat.seats", "not 1 to 1000")
    rising([n["number"] for n in d["seats"]], "seat.seats")
    want(len(d["owners"]) <= 100, "seat.owners", "more than 100")
    rising([o["name"].encode() for o in d["owners"]], "seat.owners")
    following = s["roster"]["given"] + 1
    for i, new in enumerate(d["seats"]):
        was = seat_of(s["roster"], new["number"])
        if was is None:
            want(new["number"] == following, f"seat.seats[{i}].number", f"the next one is {following}")
            following += 1
            continue
        want(new != was, f"seat.seats[{i}]", "it is like this already")
        for same in ("name", "key", "journal", "member"):
            want(new[same] == was[same], f"seat.seats[{i}].{same}", "it stays")
    new_members = [n for n in d["seats"] if n["member"] and seat_of(s["roster"], n["number"]) is None]
    want(len(new_members) <= 2, "seat.seats", "more than two new members")
    for i, o in enumerate(d["owners"]):
        want(owner_of(s["roster"], o["name"]) is None, f"seat.owners[{i}].name", "he is there already")
        want(any(n["owner"] == o["name"] for n in d["seats"]), f"seat.owners[{i}].name", "no seat comes with him")
    r = only_owners(with_owners(with_seats(s["roster"], d["seats"]), d["owners"]), s["name"])
    fourth = votes(r) >= 4 and r["rule"] == "majority"
    want(d["rule"] == ("two-thirds" if fourth else ""), "seat.rule", "two-thirds with the fourth vote, and else none")
    return bounded_change(s, {**r, "rule": "two-thirds"} if fourth else r, "seat")


def unseat(s, d):
    want(1 <= len(d["seats"]) <= 1000, "unseat.seats", "not 1 to 1000")
    all_there(s, d["seats"], "unseat.seats")
    all_there(s, d["members"], "unseat.members")
    more = []
    for i, n in enumerate(d["members"]):
        was = seat_of(s["roster"], n)
        want(was["spare"] and n not in d["seats"], f"unseat.members[{i}]", "no spare that stays")
        more.append({**was, "member": True, "spare": False})
    want(len(more) <= sum(n in d["seats"] for n in members_of(s["roster"])), "unseat.members", "more than leave")
    want(len(more) <= 2, "unseat.members", "more than two")
    r = only_owners(without_seats(with_seats(s["roster"], more), d["seats"]), s["name"])
    return not_cut_off(s, bounded_change(ca_anew(s, d["ca"], d["seats"], "unseat.ca"), r, "unseat"), "unseat.members")


def replace(s, d):
    old, new = seat_of(s["roster"], d["old"]), d["new"]
    want(old, "replace.old", "there is no such seat")
    want(new["number"] == s["roster"]["given"] + 1, "replace.new.number", "not the one that follows")
    want(new == {**old, "number": new["number"], "key": new["key"], "journal": new["journal"]}, "replace.new", "it differs in more")
    want(new["key"] != old["key"] and new["journal"] != old["journal"], "replace.new", "key or journal are the same")
    r = with_seats(without_seats(s["roster"], [d["old"]]), [new])
    return new_roster(ca_anew(s, d["ca"], [d["old"]], "replace.ca"), r, "replace")


def isolate(s, d):
    want(1 <= len(d["seats"]) <= 1000, "isolate.seats", "not 1 to 1000")
    all_there(s, d["seats"], "isolate.seats")
    for i, n in enumerate(d["seats"]):
        want((n in s["isolated"]) == d["lift"], f"isolate.seats[{i}]", "it is so already")
    return {**s, "isolated": sorted(set(s["isolated"]) ^ set(d["seats"]))}


def policy(s, d):
    check_policy(d, "policy")
    want(d["trial"] == s["trial"], "policy.trial", "not the genesis'")
    want(d["votes"] >= votes(s["roster"]), "policy.votes", "fewer than there are")
    return {**s, "policy": d}


def rule(s, d):
    want(s["roster"]["rule"] != d["rule"], "rule.rule", "it is so already")
    return new_roster(s, {**s["roster"], "rule": d["rule"]}, "rule")


def tuf_root(s, d):
    want(d["number"] == s["tufNumber"] + 1 or s["tufNumber"] == 0 and d["number"] <= 2**20, "tufRoot.number", "it does not follow")
    want(d["root"] not in (ZERO, s["tufRoot"]), "tufRoot.root", "none, or the same")
    return {**s, "tufRoot": d["root"], "tufNumber": d["number"]}


def members(s, d):
    want(len(d["members"]) in (1, 3, 5), "members.members", "1, 3 or 5")
    want(len(d["spares"]) <= 1000, "members.spares", "more than 1000")
    all_there(s, d["members"], "members.members")
    all_there(s, d["spares"], "members.spares")
    want(not set(d["members"]) & set(d["spares"]), "members.spares", "a member")
    was = {n["number"]: n for n in s["roster"]["seats"]}
    more = [n for n in d["members"] if not was[n]["member"]]
    want(len(more) <= 2 and all(was[n]["spare"] for n in more), "members.members", "two new ones at most, who were spares")
    seats = [{**n, "member": n["number"] in d["members"], "spare": n["number"] in d["spares"]} for n in s["roster"]["seats"]]
    want(seats != s["roster"]["seats"], "members", "nothing is changed")
    return not_cut_off(s, new_roster(s, {**s["roster"], "seats": seats}, "members"), "members.members")


def owners(s, d):
    o = d["owner"]
    was = owner_of(s["roster"], o["name"])
    want(was, "owners.owner.name", "there is no such owner")
    want(was != o, "owners.owner", "he has these keys already")
    after = new_roster(s, with_owners(s["roster"], [o]), "owners")
    if not d["lost"]:
        return {**after, "claim": None} if s["claim"] and s["claim"]["owner"]["name"] == o["name"] else after
    want(s["claim"] is None, "owners.lost", "another owner waits")
    return {**s, "claim": {"owner": o, "height": s["height"] + 1, "record": None}}


def settle(s, d):
    claim = s["claim"]
    want(claim and claim["record"] == d["record"], "settle.record", "there is no such claim")
    s = {**s, "claim": None}
    return s if d["veto"] else new_roster(s, with_owners(s["roster"], [claim["owner"]]), "settle")


def double_vote(s, d):
    was = seat_of(s["roster"], d["seat"])
    want(was and was["key"] not in s["barred"], "doubleVote.seat", "it is not there, or barred already")
    after = new_roster(s, with_seats(s["roster"], [{**was, "vote": False}]), "doubleVote")
    return {**after, "barred": [*s["barred"], was["key"]]}


def break_glass(s, d):
    r, before = d["roster"], s["roster"]
    check_roster(r, "breakGlass.roster")
    for i, o in enumerate(r["owners"]):
        want(owner_of(before, o["name"]) == o, f"breakGlass.roster.owners[{i}]", "not as before")
    want(owner_of(r, s["name"]), "breakGlass.roster.owners", "the fleet's owner is missing")
    want(only_owners(r, s["name"])["owners"] == r["owners"], "breakGlass.roster.owners", "one of them has no seat")
    following = before["given"] + 1
    for i, new in enumerate(r["seats"]):
        if new["number"] > before["given"]:
            want(new["number"] == following, f"breakGlass.roster.seats[{i}].number", f"the next one is {following}")
            following += 1
            continue
        was = seat_of(before, new["number"])
        want(was and {**plain(was), "vote": True} == {**plain(new), "vote": True}, f"breakGlass.roster.seats[{i}]", "not as before")
    want(r["given"] == max(before["given"], r["seats"][-1]["number"]), "breakGlass.roster.given", "not the highest number so far")
    leave = [n["number"] for n in before["seats"] if seat_of(r, n["number"]) is None]
    after = new_roster(ca_anew(s, d["ca"], leave, "breakGlass.ca"), r, "breakGlass")
    return {**after, "brokenGlass": s["height"] + 1}


DECIDE = {
    "founding": founding, "operators": operators, "seat": seat, "unseat": unseat, "replace": replace, "isolate": isolate,
    "policy": policy, "rule": rule, "tufRoot": tuf_root, "ca": lambda s, d: with_ca(s, d["certificate"], "ca.certificate"),
    "members": members, "owners": owners, "settle": settle, "doubleVote": double_vote, "breakGlass": break_glass,
}

PROPOSED = {"operators", "seat", "unseat", "replace", "isolate", "policy", "rule", "tufRoot", "ca", "members", "owners"}


# ---- Evidence ------------------------------------------------------------------------------------


class Evidence:
    """What the objects say on which a decision rests."""

    def __init__(self, s, kind, d, plain_value, objects):
        self.s, self.kind, self.d, self.plain_value = s, kind, d, plain_value
        self.id = self.proposal = self.proposer = self.proof = None
        self.answers, self.fresh, self.opinions, self.requests = [], set(), {}, {}
        self.gets = {"seat": lambda: d["owners"], "owners": lambda: [d["owner"]]}.get(kind, list)()
        made = {"seat": lambda: d["seats"], "replace": lambda: [d["new"]], "breakGlass": lambda: d["roster"]["seats"]}.get(kind, list)()
        self.new_seats = {n["key"]: n for n in made if n["number"] > s["roster"]["given"]}
        want(len(objects) <= 4096, "evidence", "more than 4096 objects")
        want(sum(8 + (len(raw or b"") + 2) // 3 * 4 for raw in objects) <= 359168, "evidence", "too many bytes")
        want(len(set(objects)) == len(objects), "evidence", "an object is there twice")
        self.topic = sha256(message(b"kogge/topic/v1", s["fleet"], plain_value)) if kind in ("settle", "doubleVote") else None
        for i, raw in enumerate(objects):
            tag = fields_of(raw or b"", 1)
            if tag and tag[0][0] == b"kogge/double-vote/v1":
                self.read_proof(raw, f"evidence[{i}]")
            elif (raw or b"").startswith(b"{"):
                self.read_answer(raw, f"evidence[{i}]")
            else:
                self.read_envelope(raw or b"", f"evidence[{i}]")

    def is_about(self, id_, otherwise):
        """Whether something is about the proposal, or about what is decided without one."""
        about = self.id or otherwise
        return about is not None and about == id_

    def read_proof(self, raw, field):
        want(self.kind == "doubleVote" and self.proof is None, field, "no proof is wanted, or there is one")
        f, rest = fields_of(raw, 3) or (None, b"")
        want(f and not rest and len(raw) <= 2048 and f[1] < f[2], field, "not two ballots in order")
        was = seat_of(self.s["roster"], self.d["seat"])
        want(was, field, "there is no such seat")
        heads = set()
        for ballot in f[1:]:
            tag = (fields_of(ballot, 1) or [[b""]])[0][0]
            n = {b"kogge/prevote/v1": 7, b"kogge/precommit/v1": 7, b"kogge/chair-proposal/v1": 8}.get(tag)
            parts, rest = n and fields_of(ballot, n) or (None, b"")
            want(parts and len(rest) == 68, field, "not a ballot")
            want([len(p) for p in parts[1:]] == [32, 8, 4, 32, 32, 32, 4][: n - 1], field, "not a ballot")
            height, round_, number_ = (int.from_bytes(b, "big") for b in (parts[2], parts[3], rest[:4]))
            want(1 <= height <= 2**62 and round_ <= 2**30 and 1 <= number_ <= 2**30, field, "not a ballot")
            want(n == 7 or int.from_bytes(parts[7], "big") <= round_, field, "not a ballot")
            want(parts[1] == self.s["fleet"], field, "of another fleet")
            want(rest[:4] == u32(self.d["seat"]), field, "of another seat")
            heads.add(tuple(parts[:4]))
            verify(was["key"], ballot[: -len(rest)], rest[4:], field)
        want(len(heads) == 1, field, "of two steps, rounds or heights")
        want(f[1][:-68] != f[2][:-68], field, "they say the same")
        self.proof = True

    def read_answer(self, raw, field):
        want(len(raw) <= 4096, field, "more than 4096 bytes")
        a = document(ANSWER, raw, field)
        check_signatures(a["signatures"], f"{field}.signatures")
        want(a["signatures"] and self.is_about(a["proposal"], self.d["record"] if self.kind == "settle" else None), field, "not about this")
        data = message(
            b"kogge/answer/v1", self.s["fleet"], a["proposal"], a["owner"].encode(), bytes([a["yes"]]), u64(a["number"]), a["why"].encode())
        owner = owner_of(self.s["roster"], a["owner"])
        wrong = Refused(f"{field}: there is no such owner")
        if owner:
            try:
                by_owner(a["signatures"], owner, 1 if self.kind == "settle" else owner["threshold"], data, f"{field}.signatures")
                self.answers.append(a)
                wrong = None
            except Refused as e:
                wrong = e
        for o in self.gets:
            if a["yes"] and o["name"] == a["owner"]:
                try:
                    by_owner(a["signatures"], o, o["threshold"], data, f"{field}.signatures")
                    self.fresh.add(o["name"])
                    wrong = None
                except Refused:
                    pass  # then it is by the old keys, or by none
        if wrong:
            raise wrong

    def read_envelope(self, raw, field):
        f, signature = fields_of(raw, 5) or (None, b"")
        want(f and len(signature) == 64 and len(raw) <= 65536, field, "not an envelope")
        kind, fleet, by, sequence, body = f
        want(1 <= len(kind) <= 64 and len(fleet) == 32 and len(sequence) == 8, field, "not an envelope")
        check_signer(by, f"{field}.by")
        verify(by, raw[:-64], signature, field)
        want(fleet == self.s["fleet"], field, "of another fleet")
        if kind == b"kogge/propose/v1":
            want(self.id is None, field, "there is another proposal")
            want(by[0] == 2 and 1 <= int.from_bytes(sequence, "big") <= 2**53, field, "not an operator's, or its number is wrong")
            self.proposal = document(PROPOSAL, body, field)
            self.id, self.proposer = sha256(raw[:-64]), sha256(SPKI, by[1:])
        elif kind == b"kogge/opinion/v1":
            want(len(raw) <= 3072, field, "more than 3072 bytes")
            was = next((n for n in self.s["roster"]["seats"] if n["key"] == by), None)
            want(was, field, "its key has no seat")
            o = document(OPINION, body, field)
            want(o["proposal"] != ZERO, field, "about nothing")
            well = o["valid"] and o["ready"]
            want(len(o["why"]) == 0 if well else 1 <= len(o["why"]) <= 2 and all(o["why"]), field, "a reason too many, or none")
            want(self.is_about(o["proposal"], self.topic) or was["number"] in self.s["awaited"], field, "not about this")
            self.opinions[was["number"]] = max(o["height"], self.opinions.get(was["number"], 0))
        elif kind == b"kogge/seat/v1":
            r = document(REQUEST, body, field)
            want(r["arch"] and (r["height"] == 0) == (r["head"] == ZERO), field, "no architecture, or no head")
            want(len(r["problem"].encode()) <= 500, field, "a problem of more than 500 bytes")
            want(len(r["addresses"]) <= 16 and len(set(r["addresses"])) == len(r["addresses"]), field, "too many addresses")
            want(by in self.new_seats, field, "its key gets no seat")
            self.requests[by] = r
        else:
            raise Refused(f"{field}: of no kind that belongs there")

    def yes(self, name):
        """Whether an owner says yes: by his newest answer, and of two with one number by the no."""
        said = [(a["number"], not a["yes"]) for a in self.answers if a["owner"] == name and a["proposal"] == self.id]
        return bool(said) and not max(said)[1]

    def check_proposal(self):
        if self.kind not in PROPOSED:
            want(self.id is None, "evidence", "no operator proposes this")
            return
        want(self.id is not None, "evidence", "there is no proposal")
        want(self.proposal["value"] == self.plain_value, "evidence", "something else was proposed")
        want(self.proposal["height"] <= self.s["height"], "evidence", "the proposal is of a height to come")
        want(self.id not in self.s["decided"], "evidence", "it was decided already")
        by = next((o for o in self.s["operators"] if o["key"] == self.proposer), None)
        want(by, "evidence", "who proposed it is no operator")
        want(by["role"] == "admin" or by["role"] == self.s["policy"]["propose"], "evidence", "who proposed it has too low a role")

    def check_waiting(self, s, after):
        for n in changed(s["roster"], after["roster"]):
            was, now = seat_of(s["roster"], n), seat_of(after["roster"], n)
            goes = was and n in s["awaited"] and not (now and now["vote"])
            want(goes or not was and self.kind == "replace" or not s["awaited"], "evidence", f"seats {s['awaited']} are awaited")

    def check_consent(self, after):
        s, d = self.s, self.d
        for key, new in self.new_seats.items():
            r = self.requests.get(key)
            want(r and r["name"] == new["name"] and r["journal"] == new["journal"], "evidence", f"seat {new['number']} was not asked for")
            want(not (new["member"] or new["spare"]) or r["arch"] in ("amd64", "arm64"), "evidence", "it cannot run etcd")
        for o in self.gets:
            want(o["name"] in self.fresh, "evidence", f"no yes by the new keys of {o['name']}")
        if self.kind == "isolate" and not d["lift"]:
            beyond = len(after["isolated"]) > liars(after["roster"]) or cut_off(after)
            want(not beyond or self.yes(s["name"]), "isolate.seats", "so many need a yes of the fleet's owner")
        elif self.kind == "owners":
            n = votes(s["roster"])
            yes = sum(seat_["vote"] and self.yes(seat_["owner"]) for seat_ in s["roster"]["seats"])
            want(yes >= (5 * n // 6 + 1 if d["lost"] else quorum(s["roster"])), "evidence", "owners of too few votes say yes")
            want(d["lost"] or self.yes(d["owner"]["name"]), "evidence", "the owner says no yes")
        elif self.kind == "settle" and d["veto"]:
            name = s["claim"]["owner"]["name"]
            want(any(a["owner"] == name and not a["yes"] for a in self.answers), "evidence", "nobody objects")
        elif self.kind == "doubleVote":
            want(self.proof, "evidence", "there is no proof")


def decide(s, value, raw_objects):
    """The state after a value, but for height, record and tree."""
    kinds = [k for k in KINDS if value[k] is not None]
    want(len(kinds) == 1, "value", "it decides not one thing")
    kind, d = kinds[0], value[kinds[0]]
    want((kind == "founding") == (s["height"] == 0), kind, "the founding is record 1, and no other")
    peaks = ()
    for raw in raw_objects:
        peaks = grow(peaks, leaf(raw or b""))
    want(value["evidence"] == (root(peaks) if peaks else ZERO), "evidence", "the value names another root")
    if kind == "founding":
        want(not raw_objects, "evidence", "a founding has none")
        return founding(s, d)
    ev = Evidence(s, kind, d, encode(VALUE, {**value, "evidence": ZERO}), raw_objects)
    ev.check_proposal()
    s = {**s, "awaited": [n for n in s["awaited"] if ev.opinions.get(n, 0) < s["seated"]]}
    after = DECIDE[kind](s, d)
    if kind in ("seat", "unseat", "replace"):
        ev.check_waiting(s, after)
    ev.check_consent(after)
    return {**after, "decided": s["decided"] | {ev.id} if ev.id else s["decided"]}


# ---- Record and certificate ----------------------------------------------------------------------


def append(s, raw_record, raw_value, raw_certificate):
    """The state after an entry."""
    height = s["height"] + 1
    r = document(RECORD, raw_record, "record")
    want(r["fleet"] == s["fleet"], "record.fleet", "another fleet's")
    want(r["height"] == height, "record.height", "another one is wanted")
    want(r["previous"] == s["record"], "record.previous", "not the record before")
    want(height == 1 or r["roster"] == s["rosterHash"], "record.roster", "not the roster before")
    want(r["value"] == sha256(raw_value), "record.value", "not the value that is there")
    c = document(CERTIFICATE, raw_certificate, "certificate")
    want((c["version"] == 2) == bool(c["evidence"]), "certificate.version", "2 with evidence, else 1")
    check_signatures(c["seats"], "certificate.seats")
    check_signatures(c["owners"], "certificate.owners")
    hash_ = leaf(raw_record)
    broken = height > 1 and bool(c["owners"])
    if height == 1 or broken:
        want(not c["seats"] and c["round"] == 0, "certificate.seats", "owners sign it alone")
        owner = s["founder"] if height == 1 else owner_of(s["roster"], s["name"])
        tag = b"kogge/break-glass/v1" if broken else b"kogge/founding/v1"
        by_owner(c["owners"], owner, owner["threshold"], message(tag, s["fleet"], hash_), "certificate.owners")
    else:
        data = message(b"kogge/precommit/v1", s["fleet"], u64(height), u32(c["round"]), r["roster"], hash_, root(s["peaks"]))
        for i, vote in enumerate(c["seats"]):
            voter = seat_of(s["roster"], vote["by"])
            want(voter and voter["vote"], f"certificate.seats[{i}].by", "it has no vote")
            verify(voter["key"], data, vote["signature"], f"certificate.seats[{i}].signature")
        want(len(c["seats"]) >= quorum(s["roster"]), "certificate.seats", "no quorum")
    value = document(VALUE, raw_value, "value")
    want(broken == (value["breakGlass"] is not None), "certificate.owners", "owners break the glass, and votes do not")
    after = decide(s, value, c["evidence"])
    want(height > 1 or after["rosterHash"] == r["roster"], "record.roster", "another one is founded")
    if after["claim"] and after["claim"]["height"] == height:
        after["claim"] = {**after["claim"], "record": hash_}
    return {**after, "height": height, "record": hash_, "peaks": grow(s["peaks"], hash_)}


# ---- File ----------------------------------------------------------------------------------------

SIZES = {"genesis": 65536, "record": 1024, "value": 1048576, "certificate": 520192}


class File:
    def __init__(self, raw):
        self.raw, self.at = raw, 0

    def line(self):
        end = self.raw.find(b"\n", self.at) + 1 or len(self.raw)
        out, self.at = self.raw[self.at : end], end
        return out

    def document(self, name, height):
        m = re.fullmatch(rb"%s %d (0|[1-9][0-9]{0,9})\n" % (name.encode(), height), self.line())
        want(m and int(m[1]) <= SIZES[name], name, "its line is missing, or its size is wrong")
        raw = self.raw[self.at : self.at + int(m[1])]
        want(len(raw) == int(m[1]), name, "the file ends too early")
        self.at += len(raw)
        return raw


def verify_ledger(genesis, raw, known):
    """The answer for one ledger, in a line. known has the states of what was verified before, by the
    SHA-256 of the bytes: ledgers that begin alike are verified once up to where they differ."""
    height = 0
    try:
        f = File(raw)
        want(f.line() == b"kogge-ledger 1\n", "line 1", "it is another one")
        want(f.document("genesis", 0) == genesis, "genesis", "it is not the one that is trusted")
        before = sha256(raw[: f.at])
        s = known.get(before) or begin(genesis)
        known[before] = s
        while f.at < len(raw):
            height, start = height + 1, f.at
            entry = [f.document(name, height) for name in ("record", "value", "certificate")]
            before = sha256(before, raw[start : f.at])
            s = known.get(before) or append(s, *entry)
            known[before] = s
    except Refused as e:
        return f"refuse {height}: {e}"
    return accepted(s)


def accepted(s):
    """A state in a line."""
    claim = s["claim"] and f"{s['claim']['owner']['name']}@{s['claim']['height']}:{s['claim']['record'].hex()}"
    parts = {
        "record": s["record"].hex(), "tree": root(s["peaks"]).hex(), "roster": s["rosterHash"].hex(),
        "operators": ",".join(f"{o['name']}:{o['role']}:{o['key'].hex()[:12]}" for o in s["operators"]),
        "policy": sha256(encode(POLICY, s["policy"])).hex(), "tufRoot": f"{s['tufNumber']}:{s['tufRoot'].hex()}",
        "nodeCA": sha256(s["nodeCA"]["key"]).hex(), "formerCAs": len(s["formerCAs"]),
        "isolated": s["isolated"], "barred": len(s["barred"]), "awaited": s["awaited"], "seated": s["seated"],
        "claim": claim or "none", "glassBrokenAt": s["brokenGlass"], "knowCA": sorted(s["knowCA"]),
    }
    return f"accept {s['height']} " + " ".join(f"{k}={v}".replace(" ", "") for k, v in parts.items())


def read(name):
    with open(name, "rb") as f:
        return f.read()


def main(args):
    if not args or len(args) % 2:
        print(__doc__, file=sys.stderr)
        return 2
    known, refused = {}, False
    for genesis, ledger in zip(args[::2], args[1::2]):
        answer = verify_ledger(read(genesis), read(ledger), known)
        refused = refused or answer.startswith("refuse")
        print(answer.encode("unicode_escape").decode(), flush=True)
    return int(refused)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
