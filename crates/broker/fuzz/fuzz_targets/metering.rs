//! What the targets for answers of providers share: the same whatever the chunking, in bounded memory.

use tipstaff_broker::parse::meter::{Api, Framing, Meter};

/// Meters an answer whole and in pieces. The first byte says how long a piece is.
pub fn check(api: Api, framing: Framing, input: &[u8]) {
    let Some((size, bytes)) = input.split_first() else { return };
    let (mut whole, mut pieces) = (Meter::new(api, framing), Meter::new(api, framing));
    whole.push(bytes);
    for piece in bytes.chunks(usize::from(*size).max(1)) {
        pieces.push(piece);
    }
    assert_eq!(whole.usage(100, 1_000), pieces.usage(100, 1_000));
    assert_eq!((whole.model(), whole.is_finished()), (pieces.model(), pieces.is_finished()));
}
