"""The corpus on which redaction is measured: text as agents' transcripts have it, with planted secrets and decoys.

Every byte is decided by the seed. No secret was ever issued. `make` writes the files and the truth; `recall` compares
what a scanner reported with the truth.
"""

import base64
import json
import random
import string
import urllib.parse
import zlib
from pathlib import Path

VERSION = 1  # raise it when the corpus changes
LETTERS = string.ascii_letters + string.digits
WORDS = (
    "warrant broker lease ledger branch commit budget scope signal quorum parcel margin return match value error "
    "self result option string buffer index token stream config request response header await async struct import"
).split()
PLAIN, ENCODED, SPLIT, DECOYS = "plain and JSON", "encoded", "split", "decoys"
BOUNDS = {PLAIN: 99, ENCODED: 95, SPLIT: 95}  # least recall, in percent

# Runs secretlint in one process: `scan.mjs FOLDER OUT`. It counts in UTF-16, the truth in bytes.
SECRETLINT_SCRIPT = """\
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { lintSource } from "@secretlint/core";
import { creator } from "@secretlint/secretlint-rule-preset-recommend";

const [folder, out] = process.argv.slice(2);
const config = { rules: [{ id: "@secretlint/secretlint-rule-preset-recommend", rule: creator }] };
const rows = [];
for (const file of readdirSync(folder).sort()) {
  const content = readFileSync(`${folder}/${file}`, "utf8");
  const source = { filePath: `/corpus/${file}`, content, contentType: "text" };
  const { messages } = await lintSource({ source, options: { config, noPhysicFilePath: true } });
  for (const { range: [from, to], ruleId } of messages) {
    const off = Buffer.byteLength(content.slice(0, from));
    rows.push(JSON.stringify({ file, off, len: Buffer.byteLength(content.slice(from, to)), rule: ruleId }));
  }
}
writeFileSync(out, rows.map((row) => row + "\\n").join(""));
"""


class Maker:
    def __init__(self, seed):
        self.random = random.Random(seed)

    def draw(self, length, alphabet=LETTERS):
        return "".join(self.random.choices(alphabet, k=length))

    def classic(self, prefix):
        body = self.draw(30)
        check, digits = zlib.crc32(body.encode()), ""
        while check:
            check, digit = divmod(check, 62)
            digits = (string.digits + string.ascii_letters)[digit] + digits
        return prefix + body + digits.rjust(6, "0")

    def jwt(self):
        part = lambda data: base64.urlsafe_b64encode(data).decode().rstrip("=")
        claims = {"sub": self.draw(12), "iat": self.random.randrange(10**9, 2 * 10**9), "jti": self.draw(24)}
        return ".".join([part(b'{"alg":"RS256","typ":"JWT"}'), part(json.dumps(claims).encode()), part(self.random.randbytes(256))])

    def armour(self, label, size):
        body = base64.b64encode(self.random.randbytes(size)).decode()
        lines = [body[at : at + 64] for at in range(0, len(body), 64)]
        return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----"])

    def secret(self):
        """(kind, the secret, the line it stands in with {} for it)"""
        safe = LETTERS + "-_"
        anywhere = self.random.choice(["TOKEN={}", 'export API_KEY="{}"', "token: {}", "{}", "failed for {} (401)", "+  new Client({{ apiKey: \"{}\" }});"])
        kinds = [
            ("github classic", lambda: self.classic(self.random.choice(["ghp_", "gho_", "ghu_", "ghs_"])), anywhere),
            ("github app with JWT", lambda: f"ghs_{self.random.randrange(10**5, 3 * 10**6)}_{self.jwt()}", anywhere),
            ("github fine-grained", lambda: "github_pat_11" + self.draw(20, string.ascii_uppercase + string.digits) + "_" + self.draw(59), anywhere),
            ("anthropic key", lambda: "sk-ant-api03-" + self.draw(93, safe) + "AA", anywhere),
            ("anthropic oauth", lambda: "sk-ant-oat01-" + self.draw(93, safe) + "AA", anywhere),
            ("openai project", lambda: "sk-proj-" + self.draw(74, safe) + "T3BlbkFJ" + self.draw(74, safe), anywhere),
            ("google key", lambda: "AIza" + self.draw(35, safe), anywhere),
            ("aws id", lambda: "AKIA" + self.draw(16, string.ascii_uppercase + "234567"), anywhere),
            ("aws secret", lambda: self.draw(40, LETTERS + "+/"), "AWS_SECRET_ACCESS_KEY={}"),
            ("azure devops", lambda: self.draw(76) + "AZDO" + self.draw(4), "AZURE_DEVOPS_EXT_PAT={}"),
            ("slack bot", lambda: f"xoxb-{self.random.randrange(10**11, 10**12)}-{self.random.randrange(10**12, 10**13)}-{self.draw(24)}", anywhere),
            ("stripe", lambda: "sk_live_" + self.draw(24), anywhere),
            ("npm", lambda: self.classic("npm_"), anywhere),
            ("gitlab", lambda: "glpat-" + self.draw(20, safe), anywhere),
            ("hugging face", lambda: "hf_" + self.draw(34, string.ascii_letters), anywhere),
            ("sendgrid", lambda: "SG." + self.draw(22, safe) + "." + self.draw(43, safe), anywhere),
            ("jwt", self.jwt, anywhere),
            ("private key", lambda: self.armour("PRIVATE KEY", 1190), anywhere),
            ("openssh key", lambda: self.armour("OPENSSH PRIVATE KEY", 270), anywhere),
            ("url password", lambda: self.draw(20), "DATABASE_URL=postgres://app:{}@db.internal:5432/prod"),
            ("opaque bearer", lambda: self.draw(40, safe), "Authorization: Bearer {}"),
            ("named secret", lambda: base64.b64encode(self.random.randbytes(32)).decode(), '"secretKey": "{}"'),
        ]
        kind, make, line = self.random.choice(kinds)
        return kind, make(), line

    def disguise(self, secret, line):
        """(variant, the text, what of it is the secret)"""
        variant = self.random.choices(
            ["plain", "json", "json twice", "url", "base64", "basic", "hex", "utf-16", "colours", "folded", "deltas"],
            [40, 12, 6, 7, 7, 5, 3, 4, 5, 5, 6],
        )[0]
        quoted = lambda text: json.dumps(text)[1:-1]
        whole = line.format(secret)
        if variant == "plain":
            return PLAIN, whole, secret
        if variant == "json":
            return PLAIN, quoted(whole), quoted(secret)
        if variant == "json twice":
            return PLAIN, quoted(quoted(whole)), quoted(quoted(secret))
        if variant == "url":
            shown = urllib.parse.quote(secret, safe="")
            if shown == secret:
                shown = "".join(f"%{ord(c):02X}" if at % 7 == 3 else c for at, c in enumerate(secret))
            return ENCODED, f"https://api.example.com/cb?access_token={shown}&state=1", shown
        if variant == "base64":
            shown = base64.b64encode(whole.encode()).decode()
            return ENCODED, f"data: {shown}", shown
        if variant == "basic":
            shown = base64.b64encode(f"x-access-token:{secret}".encode()).decode()
            return ENCODED, f"AUTHORIZATION: basic {shown}", shown
        if variant == "hex":
            # A value that only its name gives away is spelled with its name.
            shown = (whole if not line.startswith(("TOKEN", "{", "token", "export", "failed", "+")) else secret).encode().hex()
            return ENCODED, f"0000 | {shown}", shown
        if variant == "utf-16":
            shown = "".join(c + "\0" for c in secret)
            return ENCODED, line.format(shown), shown
        if variant == "colours":
            shown = secret[: len(secret) // 2] + "\x1b[0m\x1b[1m" + secret[len(secret) // 2 :]
            return SPLIT, line.format(shown), shown
        if variant == "folded":
            at = self.random.randrange(8, min(76, len(secret) - 1))
            shown = secret[:at] + "\n" + secret[at:]
            return SPLIT, line.format(shown), shown
        pieces, at = [], 0
        while at < len(whole):
            length = self.random.randrange(3, 9)
            pieces.append(whole[at : at + length])
            at += length
        event = lambda text: "data: " + json.dumps({"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}})
        shown = "\n".join(event(piece) for piece in pieces)
        return SPLIT, shown, shown

    def decoy(self):
        hexadecimal = "0123456789abcdef"
        return self.random.choice(
            [
                lambda: "commit " + self.draw(40, hexadecimal),
                lambda: f'"integrity": "sha512-{base64.b64encode(self.random.randbytes(64)).decode()}"',
                lambda: "id=" + "-".join(self.draw(length, hexadecimal) for length in (8, 4, 4, 4, 12)),
                lambda: "ghp_" + "x" * 36,
                lambda: "GITHUB_TOKEN=${{ secrets.GITHUB_TOKEN }}",
                lambda: "sha256:" + self.draw(64, hexadecimal),
                lambda: "AKIAIOSFODNN7EXAMPLE",
                lambda: f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{self.draw(43)} dev@host",
                lambda: self.armour("PUBLIC KEY", 91),
                lambda: 'password = os.environ["DB_PASSWORD"]',
                lambda: "data:image/png;base64,iVBORw0KGgo" + self.draw(200, LETTERS + "+/"),
                lambda: "toolu_01" + self.draw(22),
                lambda: "traceparent: 00-" + self.draw(32, hexadecimal) + "-" + self.draw(16, hexadecimal) + "-01",
                lambda: "pk_live_" + self.draw(24),
                lambda: "x-request-id: " + self.draw(32, hexadecimal),
            ]
        )()

    def line(self):
        word = lambda: self.random.choice(WORDS)
        return self.random.choice(
            [
                lambda: f"    let {word()}_{word()} = {word()}.{word()}(&{word()}, {self.random.randrange(10**6)});",
                lambda: f"        // {' '.join(word() for _ in range(self.random.randrange(4, 14)))}.",
                lambda: f"2026-11-0{self.random.randrange(1, 9)}T12:00:00Z INFO {word()}[{self.random.randrange(99)}]: {word()} {word()} {word()} in {self.random.randrange(999)} ms",
                lambda: f'{{"type":"{word()}","id":"{self.draw(12)}","{word()}":{self.random.randrange(10**5)}}}',
                lambda: f"index {self.draw(7, '0123456789abcdef')}..{self.draw(7, '0123456789abcdef')} 100644 crates/{word()}/src/{word()}.rs",
                lambda: f"if ({word()}.{word()} !== {word()}) {{ throw new Error(`{word()} ${{{word()}}}`); }}",
                lambda: "",
            ]
        )()


def make(folder, megabytes, seed=7):
    """Writes the files and the truth once; says where."""
    target = folder / f"redaction-{VERSION}-{megabytes}-{seed}"
    if (target / "truth.jsonl").exists():
        return target
    (target / "files").mkdir(parents=True, exist_ok=True)
    maker = Maker(seed)
    blocks = ["\n".join(maker.line() for _ in range(300)) for _ in range(200)]
    truth = []
    for number in range(max(1, megabytes // 10)):
        name, out = f"{number:02d}.txt", bytearray()
        as_json = number % 3 == 0
        while len(out) < min(megabytes, 10) * 1_000_000:
            block = maker.random.choice(blocks)
            block = block[maker.random.randrange(4000) :]
            if as_json:
                block = json.dumps({"type": "tool_result", "id": "toolu_01" + maker.draw(22), "content": block})
            out += block.encode() + b"\n"
            if maker.random.random() < 0.5:
                kind, secret, line = maker.secret()
                group, text, shown = maker.disguise(secret, line)
                start = len(out) + text.encode().index(shown.encode())
                truth.append({"file": name, "off": start, "len": len(shown.encode()), "kind": kind, "group": group})
                out += text.encode() + b"\n"
            else:
                text = maker.decoy().encode()
                truth.append({"file": name, "off": len(out), "len": len(text), "kind": "decoy", "group": DECOYS})
                out += text + b"\n"
        (target / "files" / name).write_bytes(out)
    (target / "truth.jsonl").write_text("".join(json.dumps(row) + "\n" for row in truth))
    return target


def part(corpus, target, files):
    """A corpus of the first files of another."""
    (target / "files").mkdir(parents=True)
    names = sorted(file.name for file in (corpus / "files").iterdir())[:files]
    for name in names:
        (target / "files" / name).write_bytes((corpus / "files" / name).read_bytes())
    rows = (corpus / "truth.jsonl").read_text().splitlines()
    (target / "truth.jsonl").write_text("".join(row + "\n" for row in rows if json.loads(row)["file"] in names))
    return target


def recall(corpus, spans):
    """Of each group: (how many were touched by a reported span, how many there are)."""
    found = {}
    for span in spans:
        found.setdefault(span["file"], []).append((span["off"], span["off"] + span["len"]))
    groups = {}
    for row in map(json.loads, (corpus / "truth.jsonl").read_text().splitlines()):
        start, end = row["off"], row["off"] + row["len"]
        hit = any(a < end and b > start for a, b in found.get(row["file"], []))
        group = groups.setdefault(row["group"], [0, 0])
        group[0] += hit
        group[1] += 1
    return groups


def peer_spans(corpus, rows):
    """Spans from (file, first line, value, last line), for scanners that name lines and values."""
    texts = {}
    for name, first, value, last in rows:
        if name not in texts:
            data = (corpus / "files" / name).read_bytes()
            starts = [0]
            at = data.find(b"\n")
            while at >= 0:
                starts.append(at + 1)
                at = data.find(b"\n", at + 1)
            starts.append(len(data))
            texts[name] = (data, starts)
        data, starts = texts[name]
        begin = starts[min(first, len(starts) - 1) - 1]
        end = starts[min(last, len(starts) - 1)]
        at = data.find(value.encode("utf-8", "surrogateescape"), begin, end + len(value) + 64) if value else -1
        if at >= 0:
            yield {"file": name, "off": at, "len": len(value.encode("utf-8", "surrogateescape"))}
        else:
            yield {"file": name, "off": begin, "len": max(1, end - begin)}


def betterleaks_spans(corpus, report):
    places = ((finding["location"], finding["match"]) for finding in json.loads(report.read_text())["findings"])
    return peer_spans(
        corpus,
        (
            (Path(place["path"]).name, place["start_line"], match["value"] or "", place.get("end_line", place["start_line"]))
            for place, match in places
        ),
    )


def kingfisher_spans(corpus, report):
    found = (row["finding"] for row in map(json.loads, report.read_text().splitlines()) if "finding" in row)
    return peer_spans(
        corpus,
        (
            (Path(at["path"]).name, at["line"], at["snippet"], at["line"] + at["snippet"].count("\n"))
            for at in found
        ),
    )
