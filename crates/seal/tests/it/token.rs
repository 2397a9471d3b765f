//! Tokens: what is made is read, what is mistyped is refused, what is stored gives nothing away.

use proptest::prelude::*;
use std::collections::HashSet;
use tipstaff_model::{FixedEntropy, OrgId};
use tipstaff_seal::SystemEntropy;
use tipstaff_seal::token::{Token, TokenHash, TokenKind};

fn sample() -> Token {
    Token::new(TokenKind::Key, OrgId::from_bytes([0xab; 16]), &FixedEntropy::seeded(1))
}

#[test]
fn what_is_made_is_read() {
    for kind in TokenKind::ALL {
        let token = Token::new(*kind, OrgId::from_bytes([0xab; 16]), &SystemEntropy);
        assert!(token.expose().starts_with(&format!("tip_{}_abababab_", kind.as_str())));
        let read = Token::parse(token.expose()).unwrap();
        assert_eq!((read.kind(), read.hash()), (*kind, token.hash()));
        assert_eq!(read.hash().to_string().parse::<TokenHash>().unwrap(), token.hash());
    }
}

#[test]
fn tokens_do_not_repeat() {
    let tokens: HashSet<String> = (0..500)
        .map(|_| {
            Token::new(TokenKind::Person, OrgId::from_bytes([1; 16]), &SystemEntropy).expose().to_owned()
        })
        .collect();
    assert_eq!(tokens.len(), 500);
}

#[test]
fn every_changed_or_missing_character_is_refused() {
    let token = sample();
    let text = token.expose();
    for at in 0..text.len() {
        assert!(Token::parse(&[&text[..at], &text[at + 1..]].concat()).is_err(), "without {at}");
        for replacement in ["0", "z", "_", " "] {
            let changed = [&text[..at], replacement, &text[at + 1..]].concat();
            assert!(changed == text || Token::parse(&changed).is_err(), "{changed}");
        }
    }
    assert!(Token::parse(&format!("{text} ")).is_err());
    assert!(Token::parse(&format!("{text}\n")).is_err());
}

proptest! {
    #[test]
    fn any_text_gives_an_answer(text in "\\PC{0,90}", rest in "[0-9A-Za-z]{49}") {
        prop_assert!(Token::parse(&text).is_err());
        // One in 2^32 of these would have the right checksum.
        let guess = format!("tip_key_abababab_{rest}");
        prop_assert!(Token::parse(&guess).is_err());
    }
}
