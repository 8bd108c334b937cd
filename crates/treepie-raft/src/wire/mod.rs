//! What goes over a connection: frames. **Bytes ↔ values**, no sockets and no threads.
//!
//! A frame is a header, a control part and attachments. The control part is a value of any type that
//! `bincode` encodes; attachments are bytes that are sent from where they are and received into one
//! allocation each, records above all. Every length is held against a cap before anything is allocated
//! for it, and what a length claims costs at most [`RESERVE_MAX`] before the bytes come.
//!
//! ```
//! use treepie_raft::wire::{Caps, FrameKind, FrameReader, write_frame};
//!
//! let mut bytes = Vec::new();
//! write_frame(&mut bytes, FrameKind::Request, &("put", 7_u32), &[b"value"])?;
//!
//! let mut reader = FrameReader::new(&bytes[..], Caps::new(1024, 4, 1 << 20));
//! let frame = reader.frame()?.expect("there is one");
//! assert_eq!(frame.kind, FrameKind::Request);
//! assert_eq!(frame.control::<(String, u32)>()?, ("put".to_owned(), 7));
//! assert_eq!(frame.attachments, [b"value"]);
//! assert!(reader.frame()?.is_none(), "the connection ended between two frames");
//! # Ok::<(), treepie_raft::wire::WireError>(())
//! ```

pub mod codec;
mod error;
pub mod frame;
pub mod hello;
pub mod message;
pub mod page;
mod reader;
pub mod stream;
mod writer;

pub use error::WireError;
pub(crate) use error::is_timeout;
pub use frame::{Caps, FRAME_HEADER_SIZE, FrameHeader, FrameKind, PROTOCOL_VERSION};
pub use hello::{Hello, Lane, Refusal, Welcome};
pub use reader::{Frame, FrameHead, FrameReader, RESERVE_MAX, parse_frame};
pub use writer::{encode_head, write_all, write_frame};
