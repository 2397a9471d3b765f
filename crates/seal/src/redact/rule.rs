//! The formats of tokens: a prefix that is searched for, and what must follow it.
//!
//! A row is one format. Sources are the providers' own documents and their scanning partners' public descriptions; where
//! a provider says no length, the row takes what its tokens are seen to have, and the test data decides.

use super::byte::{ALNUM, DOTTED, HEX, TOKEN, UPPER, at, cut, is, run_end};
use super::shape;

/// What a rule says about the bytes that begin with its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The first so many bytes are a secret.
    Found(usize),
    /// Not a secret; it failed at this byte.
    No(usize),
    /// The bytes end before it can be said.
    More,
}

/// What must follow a prefix.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Body {
    /// A run of this class, within these lengths, and then nothing of the class. Random by its looks.
    Run(u8, usize, usize),
    /// The same, when this holds for the run too.
    Checked(u8, usize, usize, fn(&[u8]) -> bool),
    /// A form of its own.
    Form(fn(&[u8], bool) -> Verdict),
}

/// One format.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule {
    /// Stable name, shown in place of the secret.
    pub(crate) name: &'static str,
    /// What is searched for; at least three bytes.
    pub(crate) prefix: &'static [u8],
    /// A byte of this class before the prefix makes it part of another word; 0 if that does not matter.
    pub(crate) before: u8,
    /// What must follow.
    pub(crate) body: Body,
    /// Most bytes that are looked at where line ends and escapes lie within, prefix included.
    pub(crate) reach: usize,
}

impl Rule {
    const fn new(name: &'static str, prefix: &'static str, before: u8, body: Body) -> Self {
        let reach = match body {
            Body::Run(_, _, most) | Body::Checked(_, _, most, _) => prefix.len() + most + 2,
            Body::Form(_) => 4096,
        };
        Self { name, prefix: prefix.as_bytes(), before, body, reach }
    }

    /// Reads `text`, which begins with the prefix. `ending`: nothing follows it.
    pub(crate) fn read(&self, text: &[u8], ending: bool) -> Verdict {
        let (class, least, most, check) = match self.body {
            Body::Form(form) => return form(text, ending),
            Body::Run(class, least, most) => (class, least, most, None),
            Body::Checked(class, least, most, check) => (class, least, most, Some(check)),
        };
        let begin = self.prefix.len();
        let end = run_end(text, begin, class, most + 1);
        if end == text.len() && end <= begin + most && !ending {
            return Verdict::More;
        }
        let body = cut(text, begin, end);
        if body.len() < least
            || body.len() > most
            || !shape::is_random(body)
            || check.is_some_and(|check| !check(body))
        {
            return Verdict::No(end);
        }
        Verdict::Found(end)
    }
}

const fn run(name: &'static str, prefix: &'static str, class: u8, least: usize, most: usize) -> Rule {
    Rule::new(name, prefix, ALNUM, Body::Run(class, least, most))
}

const fn form(
    name: &'static str,
    prefix: &'static str,
    before: u8,
    form: fn(&[u8], bool) -> Verdict,
) -> Rule {
    Rule::new(name, prefix, before, Body::Form(form))
}

const fn checked(
    name: &'static str,
    prefix: &'static str,
    class: u8,
    least: usize,
    most: usize,
    check: fn(&[u8]) -> bool,
) -> Rule {
    Rule::new(name, prefix, ALNUM, Body::Checked(class, least, most, check))
}

/// All formats that are known by a prefix.
pub(crate) const RULES: &[Rule] = &[
    // Our own: see the module `token`.
    run("tipstaff-token", "tip_pat_", TOKEN, 50, 70),
    run("tipstaff-token", "tip_key_", TOKEN, 50, 70),
    run("tipstaff-token", "tip_dev_", TOKEN, 50, 70),
    run("tipstaff-token", "tip_wrk_", TOKEN, 50, 70),
    // What a run holds in the place of a secret: see the module `handle`.
    run("tipstaff-handle", "tsh_", ALNUM, 49, 49),
    // Source hosting.
    run("github-token", "ghp_", ALNUM, 36, 255),
    run("github-token", "gho_", ALNUM, 36, 255),
    run("github-token", "ghu_", ALNUM, 36, 255),
    run("github-token", "ghr_", ALNUM, 36, 255),
    form("github-token", "ghs_", ALNUM, github_app),
    run("github-fine-grained-token", "github_pat_", TOKEN, 60, 120),
    run("gitlab-token", "glpat-", DOTTED, 20, 320),
    run("gitlab-token", "glptt-", TOKEN, 40, 64),
    run("gitlab-token", "gldt-", TOKEN, 20, 64),
    run("gitlab-token", "glrt-", DOTTED, 20, 320),
    run("gitlab-token", "glrtr-", DOTTED, 20, 320),
    run("gitlab-token", "glcbt-", TOKEN, 20, 80),
    run("gitlab-token", "glagent-", TOKEN, 50, 64),
    run("gitlab-token", "glft-", TOKEN, 20, 64),
    run("gitlab-token", "glsoat-", TOKEN, 20, 64),
    run("gitlab-token", "glimt-", TOKEN, 20, 64),
    run("gitlab-token", "gloas-", TOKEN, 60, 68),
    run("gitlab-token", "GR1348941", TOKEN, 20, 22),
    run("bitbucket-token", "ATBB", ALNUM, 32, 36),
    // Models.
    form("anthropic-key", "sk-ant-", ALNUM, anthropic),
    form("openai-key", "sk-proj-", ALNUM, openai),
    form("openai-key", "sk-svcacct-", ALNUM, openai),
    form("openai-key", "sk-admin-", ALNUM, openai),
    form("openai-key", "sk-", TOKEN, openai_old),
    run("openrouter-key", "sk-or-v1-", HEX, 64, 64),
    checked("google-api-key", "AIza", TOKEN, 35, 35, not_a_public_example),
    checked("google-api-key", "AQ.A", TOKEN, 40, 120, has_both),
    run("google-oauth-token", "ya29.", TOKEN, 30, 2048),
    run("google-client-secret", "GOCSPX-", TOKEN, 28, 28),
    checked("huggingface-token", "hf_", ALNUM, 34, 40, has_two_cases),
    checked("huggingface-token", "api_org_", ALNUM, 34, 40, has_two_cases),
    run("groq-key", "gsk_", ALNUM, 52, 56),
    run("xai-key", "xai-", ALNUM, 80, 84),
    run("replicate-token", "r8_", ALNUM, 37, 40),
    run("nvidia-key", "nvapi-", TOKEN, 60, 80),
    run("perplexity-key", "pplx-", ALNUM, 48, 56),
    run("fireworks-key", "fw_", ALNUM, 22, 26),
    run("tavily-key", "tvly-", TOKEN, 32, 48),
    // Clouds.
    form("aws-access-key", "AKIA", ALNUM, aws_access_key),
    form("aws-access-key", "ASIA", ALNUM, aws_access_key),
    form("aws-access-key", "ABIA", ALNUM, aws_access_key),
    form("aws-access-key", "ACCA", ALNUM, aws_access_key),
    form("aws-access-key", "A3T", ALNUM, aws_access_key),
    run("aws-bedrock-key", "ABSKQmVkcm9ja0FQSUtleS", ALNUM, 100, 160),
    form("azure-client-secret", "0Q~", 0, azure_client_secret),
    form("azure-client-secret", "1Q~", 0, azure_client_secret),
    form("azure-client-secret", "2Q~", 0, azure_client_secret),
    form("azure-client-secret", "3Q~", 0, azure_client_secret),
    form("azure-client-secret", "4Q~", 0, azure_client_secret),
    form("azure-client-secret", "5Q~", 0, azure_client_secret),
    form("azure-client-secret", "6Q~", 0, azure_client_secret),
    form("azure-client-secret", "7Q~", 0, azure_client_secret),
    form("azure-client-secret", "8Q~", 0, azure_client_secret),
    form("azure-client-secret", "9Q~", 0, azure_client_secret),
    run("digitalocean-token", "dop_v1_", HEX, 64, 64),
    run("digitalocean-token", "doo_v1_", HEX, 64, 64),
    run("digitalocean-token", "dor_v1_", HEX, 64, 64),
    run("alibaba-access-key", "LTAI", ALNUM, 16, 26),
    run("databricks-token", "dapi", TOKEN, 32, 34),
    run("heroku-key", "HRKU-", TOKEN, 58, 62),
    run("fly-token", "fo1_", TOKEN, 43, 43),
    form("fly-token", "fm1", ALNUM, fly),
    form("fly-token", "fm2_", ALNUM, fly),
    run("cloudflare-key", "v1.0-", TOKEN, 160, 180),
    run("vault-token", "hvs.", TOKEN, 24, 300),
    run("vault-token", "hvb.", TOKEN, 60, 400),
    run("vault-token", "hvr.", TOKEN, 60, 400),
    form("terraform-token", "atlasv1.", ALNUM, terraform),
    run("pulumi-token", "pul-", HEX, 40, 40),
    run("scalingo-token", "tk-us-", TOKEN, 48, 48),
    run("doppler-token", "dp.pt.", ALNUM, 43, 44),
    run("doppler-token", "dp.st.", DOTTED, 40, 80),
    run("supabase-token", "sbp_", HEX, 40, 40),
    run("tailscale-key", "tskey-", TOKEN, 20, 80),
    run("openshift-token", "sha256~", TOKEN, 43, 43),
    run("prefect-token", "pnu_", ALNUM, 36, 36),
    run("planetscale-token", "pscale_", DOTTED, 32, 80),
    // Packages and builds.
    run("npm-token", "npm_", ALNUM, 36, 40),
    run("pypi-token", "pypi-AgE", TOKEN, 60, 2048),
    run("rubygems-key", "rubygems_", HEX, 48, 48),
    run("crates-io-token", "cio", ALNUM, 32, 32),
    run("nuget-key", "oy2", ALNUM, 43, 43),
    run("docker-token", "dckr_pat_", TOKEN, 27, 32),
    run("docker-token", "dckr_oat_", TOKEN, 27, 40),
    run("buildkite-token", "bkua_", ALNUM, 40, 40),
    run("circleci-token", "CCIPAT_", TOKEN, 40, 80),
    run("artifactory-key", "AKCp", ALNUM, 60, 73),
    run("artifactory-token", "cmVmd", ALNUM, 59, 59),
    run("octopus-key", "API-", UPPER, 26, 26),
    // Messages.
    form("slack-token", "xoxb-", ALNUM, slack),
    form("slack-token", "xoxp-", ALNUM, slack),
    form("slack-token", "xoxa-", ALNUM, slack),
    form("slack-token", "xoxr-", ALNUM, slack),
    form("slack-token", "xoxs-", ALNUM, slack),
    form("slack-token", "xoxo-", ALNUM, slack),
    form("slack-token", "xoxe-", ALNUM, slack),
    form("slack-token", "xoxc-", ALNUM, slack),
    form("slack-token", "xoxd-", ALNUM, slack),
    form("slack-token", "xoxe.", ALNUM, slack),
    form("slack-token", "xapp-", ALNUM, slack),
    form("slack-webhook", "https://hooks.s", ALNUM, webhook),
    form("slack-webhook", "http://hooks.s", ALNUM, webhook),
    form("sendgrid-key", "SG.", ALNUM, sendgrid),
    run("mailgun-key", "key-", HEX, 32, 32),
    form("telegram-token", ":AA", 0, telegram),
    run("twilio-key", "SK0", HEX, 31, 31),
    run("twilio-key", "SK1", HEX, 31, 31),
    run("twilio-key", "SK2", HEX, 31, 31),
    run("twilio-key", "SK3", HEX, 31, 31),
    run("twilio-key", "SK4", HEX, 31, 31),
    run("twilio-key", "SK5", HEX, 31, 31),
    run("twilio-key", "SK6", HEX, 31, 31),
    run("twilio-key", "SK7", HEX, 31, 31),
    run("twilio-key", "SK8", HEX, 31, 31),
    run("twilio-key", "SK9", HEX, 31, 31),
    run("twilio-key", "SKa", HEX, 31, 31),
    run("twilio-key", "SKb", HEX, 31, 31),
    run("twilio-key", "SKc", HEX, 31, 31),
    run("twilio-key", "SKd", HEX, 31, 31),
    run("twilio-key", "SKe", HEX, 31, 31),
    run("twilio-key", "SKf", HEX, 31, 31),
    // Money.
    run("stripe-key", "sk_live_", ALNUM, 16, 200),
    run("stripe-key", "rk_live_", ALNUM, 16, 200),
    run("stripe-key", "sk_test_", ALNUM, 16, 200),
    run("stripe-key", "rk_test_", ALNUM, 16, 200),
    run("stripe-key", "sk_prod_", ALNUM, 16, 200),
    run("stripe-key", "rk_prod_", ALNUM, 16, 200),
    run("stripe-webhook-secret", "whsec_", ALNUM, 32, 64),
    run("square-token", "sq0atp-", TOKEN, 22, 22),
    run("square-secret", "sq0csp-", TOKEN, 40, 48),
    form("square-or-facebook-token", "EAA", ALNUM, square_or_facebook),
    run("easypost-key", "EZAK", ALNUM, 54, 54),
    run("easypost-key", "EZTK", ALNUM, 54, 54),
    run("shopify-token", "shpat_", HEX, 32, 32),
    run("shopify-token", "shpca_", HEX, 32, 32),
    run("shopify-token", "shppa_", HEX, 32, 32),
    run("shopify-token", "shpss_", HEX, 32, 32),
    // Work.
    run("atlassian-token", "ATATT3", DOTTED, 150, 240),
    run("atlassian-token", "ATCTT3", DOTTED, 150, 240),
    run("linear-key", "lin_api_", ALNUM, 40, 48),
    checked("notion-token", "ntn_", ALNUM, 46, 46, has_both),
    run("notion-token", "secret_", ALNUM, 43, 43),
    run("figma-token", "figd_", TOKEN, 40, 48),
    run("airtable-token", "patA", DOTTED, 78, 78),
    run("postman-key", "PMAK-", TOKEN, 59, 59),
    run("readme-key", "rdme_", ALNUM, 70, 70),
    run("typeform-token", "tfp_", DOTTED, 59, 59),
    run("contentful-token", "CFPAT-", TOKEN, 43, 64),
    run("teambridge-key", "tb_ws", TOKEN, 40, 64),
    // Watching.
    run("grafana-token", "glc_", TOKEN, 32, 400),
    run("grafana-token", "glsa_", TOKEN, 41, 41),
    run("newrelic-key", "NRAK-", UPPER, 27, 27),
    run("sentry-token", "sntryu_", HEX, 64, 64),
    form("sentry-token", "sntrys_", ALNUM, sentry),
    checked("sourcegraph-token", "sgp_", TOKEN, 40, 57, is_sourcegraph),
    run("sonar-token", "squ_", HEX, 40, 40),
    run("sonar-token", "sqp_", HEX, 40, 40),
    run("sonar-token", "sqa_", HEX, 40, 40),
    Rule::new("infracost-key", "ico-", DOTTED, Body::Run(ALNUM, 32, 32)),
    checked("clickhouse-key", "4b1d", ALNUM, 38, 38, has_both),
    // Vaults, people, machines.
    run("onepassword-token", "ops_eyJ", TOKEN, 200, 2048),
    form("onepassword-secret-key", "A3-", TOKEN, onepassword),
    form("age-secret-key", "AGE-SECRET-KEY-1", ALNUM, age),
    run("intra42-secret", "s-s4t2ud-", HEX, 64, 64),
    run("intra42-secret", "s-s4t2af-", HEX, 64, 64),
    form("jwt", "eyJ", TOKEN, jwt),
    form("sidekiq-credentials", "CONTRIBSYS__COM", 0, sidekiq),
    form("registry-credentials", "{\"auths\":{", 0, registry),
];

fn has_two_cases(body: &[u8]) -> bool {
    body.iter().any(u8::is_ascii_uppercase) && body.iter().any(u8::is_ascii_lowercase)
}

/// 40 hexadecimal digits, perhaps behind `local_` or the instance's 16.
fn is_sourcegraph(body: &[u8]) -> bool {
    let last = body.rsplit(|byte| *byte == b'_').next().unwrap_or_default();
    let first = cut(body, 0, body.len() - last.len());
    let hex = last.len() == 40 && last.iter().all(u8::is_ascii_hexdigit);
    hex && (matches!(first, b"" | b"local_") || first.len() == 17)
}

/// `BUNDLE_GEMS__CONTRIBSYS__COM=8 digits:8 digits`, hexadecimal.
fn sidekiq(text: &[u8], ending: bool) -> Verdict {
    let begin = 15;
    let lead = begin + cut(text, begin, begin + 6).iter().take_while(|byte| b"=: \"'".contains(byte)).count();
    let pair = cut(text, lead, lead + 17);
    let fits = pair
        .iter()
        .enumerate()
        .all(|(index, byte)| if index == 8 { *byte == b':' } else { byte.is_ascii_hexdigit() });
    if fits && pair.len() < 17 && !ending {
        return Verdict::More;
    }
    if fits && pair.len() == 17 { Verdict::Found(lead + 17) } else { Verdict::No(lead) }
}

/// A container registry's credentials: `{"auths":{"host":{"auth":"…"}}}`, to the end of the first of them.
fn registry(text: &[u8], ending: bool) -> Verdict {
    let part = cut(text, 0, 400);
    let Some(mark) = memchr::memmem::find(part, b"\"auth\":\"") else {
        return if part.len() < 400 && !ending { Verdict::More } else { Verdict::No(10) };
    };
    let value = cut(text, mark + 8, mark + 8 + 2048);
    match value.iter().position(|byte| *byte == b'"') {
        Some(length) if length >= 8 && shape::different(cut(value, 0, length)) >= 5 => {
            Verdict::Found(mark + 8 + length)
        }
        None if value.len() < 2048 && !ending => Verdict::More,
        _ => Verdict::No(10),
    }
}

fn has_both(body: &[u8]) -> bool {
    body.iter().filter(|byte| byte.is_ascii_digit()).count() >= 2
        && body.iter().filter(|byte| byte.is_ascii_alphabetic()).count() >= 8
}

/// Keys that Google's own published examples contain, by their last letters.
const GOOGLE_EXAMPLES: &[&[u8]] = &[
    b"-oo6YyIs",
    b"UEke8agEM",
    b"HIAODrlU",
    b"ZRR_znhrh0",
    b"YefhixbX4A",
    b"_UUPwX7c",
    b"CKctWmLd4",
    b"OPjjaXeDQgY",
    b"Jv_a_p4wtM",
    b"t1sjmdnP5sQ",
    b"hrOq1cS7g",
    b"FnzAvvuU",
    b"MJmprNXsw",
    b"aOi4FmqE",
    b"rVL_n0nvY",
];

fn not_a_public_example(body: &[u8]) -> bool {
    !GOOGLE_EXAMPLES.iter().any(|tail| body.ends_with(tail))
}

/// Reads a run of a class; `None` when the text ends first.
fn reads(text: &[u8], from: usize, class: u8, most: usize, ending: bool) -> Option<usize> {
    let end = run_end(text, from, class, most);
    (ending || end < text.len() || end == from + most).then_some(end)
}

/// `ghs_` and 36 letters and digits, or `ghs_<app>_<JWT>`.
fn github_app(text: &[u8], ending: bool) -> Verdict {
    let Some(end) = reads(text, 4, ALNUM, 255, ending) else { return Verdict::More };
    let body = cut(text, 4, end);
    let digits = body.iter().all(u8::is_ascii_digit) && !body.is_empty();
    if digits && at(text, end) == Some(b'_') {
        return match jwt(cut(text, end + 1, text.len()), ending) {
            Verdict::Found(length) => Verdict::Found(end + 1 + length),
            Verdict::No(index) => Verdict::No(end + 1 + index),
            Verdict::More => Verdict::More,
        };
    }
    if body.len() >= 36 && shape::is_random(body) { Verdict::Found(end) } else { Verdict::No(end) }
}

/// `sk-ant-<kind><two digits>-` and 93 letters that end with `AA`; API keys, OAuth access and refresh tokens, admin and
/// session keys alike.
fn anthropic(text: &[u8], ending: bool) -> Verdict {
    let Some(kind) = reads(text, 7, ALNUM, 16, ending) else { return Verdict::More };
    if kind == 7 {
        return Verdict::No(kind);
    }
    if at(text, kind).is_none() && !ending {
        return Verdict::More;
    }
    if at(text, kind) != Some(b'-') {
        return Verdict::No(kind);
    }
    let begin = kind + 1;
    let Some(end) = reads(text, begin, TOKEN, 160, ending) else { return Verdict::More };
    let body = cut(text, begin, end);
    let whole = match body.len() {
        80..=94 | 96..=160 => true,
        95 => body.ends_with(b"AA"),
        _ => false,
    };
    if whole && shape::is_random(body) { Verdict::Found(end) } else { Verdict::No(end) }
}

fn openai(text: &[u8], ending: bool) -> Verdict {
    let Some(end) = reads(text, 3, TOKEN, 240, ending) else { return Verdict::More };
    let body = cut(text, 3, end);
    let marked = memchr::memmem::find(body, b"T3BlbkFJ").is_some_and(|index| body.len() >= index + 28);
    if (marked || body.len() >= 120) && shape::is_random(body) {
        Verdict::Found(end)
    } else {
        Verdict::No(end)
    }
}

/// `sk-` and letters and digits only: 48 with a mark in the middle, or 32 and more of which some are digits.
fn openai_old(text: &[u8], ending: bool) -> Verdict {
    let Some(end) = reads(text, 3, ALNUM, 128, ending) else { return Verdict::More };
    let body = cut(text, 3, end);
    let marked = memchr::memmem::find(body, b"T3BlbkFJ").is_some();
    let long = if marked { 48 } else { 32 };
    if body.len() >= long && (marked || has_both(body)) && shape::is_random(body) {
        Verdict::Found(end)
    } else {
        Verdict::No(end)
    }
}

fn aws_access_key(text: &[u8], ending: bool) -> Verdict {
    let Some(end) = reads(text, 0, ALNUM, 21, ending) else { return Verdict::More };
    let key = cut(text, 0, end);
    let body = cut(key, 4, key.len());
    let fits = key.len() == 20 && body.iter().all(|byte| matches!(byte, b'A'..=b'Z' | b'2'..=b'7'));
    if fits && !key.ends_with(b"EXAMPLE") && shape::is_random(body) {
        Verdict::Found(end)
    } else {
        Verdict::No(end)
    }
}

/// Three characters, a digit, `Q~` and 31 to 34 characters; found from the digit on.
fn azure_client_secret(text: &[u8], ending: bool) -> Verdict {
    let tail = |byte: &u8| is(*byte, DOTTED) || *byte == b'~';
    let rest = cut(text, 3, 3 + 36);
    let length = rest.iter().take_while(|byte| tail(byte)).count();
    if length == rest.len() && length < 36 && !ending {
        return Verdict::More;
    }
    if (31..=34).contains(&length) && shape::is_random(cut(rest, 0, length)) {
        Verdict::Found(3 + length)
    } else {
        Verdict::No(3 + length)
    }
}

fn base64_run(text: &[u8], from: usize, least: usize, ending: bool) -> Verdict {
    let Some(end) = reads(text, from, super::byte::RUN, 3000, ending) else { return Verdict::More };
    let padded = end + cut(text, end, end + 3).iter().take_while(|byte| **byte == b'=').count();
    if end - from >= least && shape::is_random(cut(text, from, end)) {
        Verdict::Found(padded)
    } else {
        Verdict::No(end)
    }
}

fn fly(text: &[u8], ending: bool) -> Verdict {
    base64_run(text, 4, 100, ending)
}

fn sentry(text: &[u8], ending: bool) -> Verdict {
    let Some(first) = reads(text, 7, super::byte::RUN, 600, ending) else { return Verdict::More };
    let mark = first + cut(text, first, first + 3).iter().take_while(|byte| **byte == b'=').count();
    if mark == first {
        return if first > 90 && cut(text, 7, 10) == b"eyJ" {
            Verdict::Found(first)
        } else {
            Verdict::No(first)
        };
    }
    let Some(end) = reads(text, mark, super::byte::RUN, 64, ending) else { return Verdict::More };
    if end - 7 > 90 { Verdict::Found(end) } else { Verdict::No(end) }
}

fn terraform(text: &[u8], ending: bool) -> Verdict {
    let Some(end) = reads(text, 8, TOKEN, 80, ending) else { return Verdict::More };
    if end - 8 >= 60 && shape::is_random(cut(text, 8, end)) { Verdict::Found(end) } else { Verdict::No(end) }
}

/// Groups joined by `-`: numbers first, a random one last.
fn slack(text: &[u8], ending: bool) -> Verdict {
    let begin = 5;
    let Some(end) = reads(text, begin, DOTTED, 400, ending) else { return Verdict::More };
    let body = cut(text, begin, end);
    let mut groups = body.split(|byte| *byte == b'-');
    let (Some(mut first), last) =
        (groups.next(), body.rsplit(|byte| *byte == b'-').next().unwrap_or_default())
    else {
        return Verdict::No(end);
    };
    if matches!(first, b"xoxp" | b"xoxb") {
        first = groups.next().unwrap_or_default();
    }
    let numbers = |group: &[u8]| group.len() >= 6 && group.iter().all(u8::is_ascii_digit);
    let fits = match first {
        b"1" => last.len() >= 60 || (last.len() >= 20 && text.starts_with(b"xapp-")),
        b"2" => groups.next().is_some_and(numbers) && last.len() >= 10,
        _ => {
            first.len() >= 6
                && numbers(first)
                && last.len() >= 10
                && last.len() < body.len()
                && last.iter().any(u8::is_ascii_alphabetic)
        }
    };
    if fits && shape::is_random(last) { Verdict::Found(end) } else { Verdict::No(end) }
}

fn webhook(text: &[u8], ending: bool) -> Verdict {
    let host = b"hooks.slack.com/";
    let begin = if text.starts_with(b"https") { 8 } else { 7 };
    let given = cut(text, begin, begin + host.len());
    if given != host {
        let same = given.iter().zip(host).take_while(|(a, b)| a == b).count();
        return if same == given.len() && !ending { Verdict::More } else { Verdict::No(begin + same) };
    }
    let path = begin + host.len();
    let end = path
        + cut(text, path, path + 160).iter().take_while(|byte| is(**byte, TOKEN) || **byte == b'/').count();
    if end == text.len() && !ending {
        return Verdict::More;
    }
    let last = cut(text, path, end).rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    if end - path >= 38 && last.len() >= 20 && shape::is_random(last) {
        Verdict::Found(end)
    } else {
        Verdict::No(end)
    }
}

fn sendgrid(text: &[u8], ending: bool) -> Verdict {
    let Some(end) = reads(text, 3, DOTTED, 80, ending) else { return Verdict::More };
    let body = cut(text, 3, end);
    let fits = body.len() == 66 && at(body, 22) == Some(b'.');
    if fits && shape::is_random(body) { Verdict::Found(end) } else { Verdict::No(end) }
}

/// The part behind the bot's id, which is no secret.
fn telegram(text: &[u8], ending: bool) -> Verdict {
    let Some(end) = reads(text, 1, TOKEN, 36, ending) else { return Verdict::More };
    if end == 36 && shape::is_random(cut(text, 1, end)) && has_both(cut(text, 1, end)) {
        Verdict::Found(end)
    } else {
        Verdict::No(end)
    }
}

fn square_or_facebook(text: &[u8], ending: bool) -> Verdict {
    let Some(end) = reads(text, 3, TOKEN, 400, ending) else { return Verdict::More };
    let body = cut(text, 3, end);
    let fits = match at(text, 3) {
        Some(b'C' | b'M') => body.len() >= 90,
        Some(b'A') => (58..=64).contains(&body.len()),
        _ => false,
    };
    if fits && shape::is_random(body) && has_both(body) { Verdict::Found(end) } else { Verdict::No(end) }
}

fn onepassword(text: &[u8], ending: bool) -> Verdict {
    let Some(end) = reads(text, 3, TOKEN, 48, ending) else { return Verdict::More };
    let body = cut(text, 3, end);
    let fits = body.iter().all(|byte| is(*byte, UPPER) || *byte == b'-') && (33..=36).contains(&body.len());
    let groups = body.split(|byte| *byte == b'-').count();
    if fits && (5..=6).contains(&groups) && has_both(body) && shape::is_random(body) {
        Verdict::Found(end)
    } else {
        Verdict::No(end)
    }
}

fn age(text: &[u8], ending: bool) -> Verdict {
    let Some(end) = reads(text, 16, UPPER, 58, ending) else { return Verdict::More };
    if end == 74 && shape::is_random(cut(text, 16, end)) { Verdict::Found(end) } else { Verdict::No(end) }
}

/// Three parts joined by full stops; the first two begin as JSON objects do. The algorithm says how long the third is.
pub(super) fn jwt(text: &[u8], ending: bool) -> Verdict {
    let may_grow = text.len() < 3 && !ending && b"eyJ".starts_with(text);
    if !text.starts_with(b"eyJ") && !may_grow {
        return Verdict::No(0);
    }
    let Some(header) = reads(text, 0, TOKEN, 2048, ending) else { return Verdict::More };
    match at(text, header) {
        Some(b'.') if header >= 15 => {}
        None if !ending => return Verdict::More,
        _ => return Verdict::No(header),
    }
    let Some(payload) = reads(text, header + 1, TOKEN, 16_000, ending) else { return Verdict::More };
    let length = payload - header - 1;
    match at(text, payload) {
        None if !ending => return Verdict::More,
        Some(b'.') if length >= 10 => {}
        _ => return Verdict::No(payload),
    }
    let Some(mut end) = reads(text, payload + 1, TOKEN, 2048, ending) else { return Verdict::More };
    // Five parts: an encrypted one (RFC 7516).
    for _ in 0..2 {
        if at(text, end) == Some(b'.') {
            let part = run_end(text, end + 1, TOKEN, 8);
            if part < end + 9 {
                if part == text.len() && !ending {
                    return Verdict::More;
                }
                break;
            }
            let Some(next) = reads(text, end + 1, TOKEN, 16_000, ending) else { return Verdict::More };
            end = next;
        }
    }
    if at(text, end).is_none() && !ending {
        return Verdict::More;
    }
    let signature = end - payload - 1;
    let body = cut(text, header + 1, payload);
    let object = body.starts_with(b"ey") || signature >= 40;
    // One without a signature says so.
    if signature == 0 && memchr::memmem::find(&super::decode::base64(text, header), b"\"none\"").is_some() {
        return Verdict::Found(end);
    }
    // Cut off in the middle by a fold: its reader goes on.
    if signature < 20 {
        return Verdict::No(end);
    }
    if object && shape::is_random(body) { Verdict::Found(end) } else { Verdict::No(end) }
}

/// Whether a match is as long as its kind gets, so that it does not go on behind a fold.
pub(crate) fn is_whole(name: &str, text: &[u8]) -> bool {
    let last = |separator: u8| text.rsplit(|byte| *byte == separator).next().map_or(0, <[u8]>::len);
    match name {
        "jwt" => last(b'.') >= jwt_signature(text),
        "github-token" if text.contains(&b'.') => {
            last(b'.')
                >= text.iter().rposition(|byte| *byte == b'_').map_or(0, |_| jwt_signature(after_app(text)))
        }
        "slack-token" => matches!(last(b'-'), 24 | 32 | 64) || last(b'-') >= 100,
        "github-fine-grained-token" => text.len() >= 93,
        "slack-webhook" => last(b'/') >= 24,
        "stripe-key" => matches!(last(b'_'), 24 | 99),
        "anthropic-key" => last(b'-') > 0 && text.len() >= 108,
        "openai-key" => memchr::memmem::find(text, b"T3BlbkFJ").is_none_or(|mark| {
            let begin = if text.starts_with(b"sk-proj-") { 8 } else { 3 };
            text.len() - mark - 8 >= mark.saturating_sub(begin)
        }),
        _ => true,
    }
}

fn after_app(text: &[u8]) -> &[u8] {
    let digits = cut(text, 4, text.len()).iter().position(|byte| *byte == b'_').unwrap_or(0);
    cut(text, 4 + digits + 1, text.len())
}

/// How many digits of base64 the signature of a JWT has, by its algorithm (RFC 7518 §3.1).
fn jwt_signature(text: &[u8]) -> usize {
    let header = text.split(|byte| *byte == b'.').next().unwrap_or_default();
    let decoded = super::decode::base64(header, header.len());
    let Some(mark) = memchr::memmem::find(&decoded, b"\"alg\"") else { return 0 };
    let rest = cut(&decoded, mark + 5, mark + 16);
    let has = |name: &[u8]| memchr::memmem::find(rest, name).is_some();
    match () {
        () if has(b"HS256") => 43,
        () if has(b"HS384") => 64,
        () if has(b"HS512") || has(b"ES256") || has(b"EdDSA") => 86,
        () if has(b"ES384") => 128,
        () if has(b"ES512") => 176,
        () if has(b"RS") || has(b"PS") => 342,
        () => 0,
    }
}
