//! Parsers of hostile input. Pure: bytes in, values out; no I/O, no allocation beyond what the input has, no panic.
//! Each has properties in its tests and a fuzz target in `fuzz/`.

pub mod changes;
pub mod client_hello;
pub mod commit;
pub mod head;
pub mod json_scan;
pub mod link;
pub mod meter;
pub mod model_body;
pub mod model_path;
pub mod names;
pub mod numstat;
pub mod pkt_line;
pub mod receive;
pub mod route;
pub mod rpc_body;
pub mod tree;
pub mod upload;
pub mod url_path;
