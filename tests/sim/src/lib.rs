//! The whole cluster in one thread, from one seed.
//!
//! The product's own cores (balancer, conn server, gate, shards, writer, device) run on one event
//! heap over a fake internet, fake links and a fake database that delay, cut, repeat and fail as the
//! [`plan`] has drawn it. After every event the [`model`] checks the promises of docs/promises.md.
//!
//! - [`plan`]: what a run consists of. [`fault`], [`stillness`], [`shutdown`], [`people`]: what goes wrong;
//!   [`limits`]: what the servers let in. [`world`]: who gets what, from one [`heap`] of events.
//! - [`fingerprint`]: what happened, as one number. [`marks`]: what a long run must have hit.
//! - [`run`]: one run, and its failure. [`trace`]: what happened, for people. [`shrink`]: the
//!   smallest case. [`inquest`]: what is said about a failure. [`regression`]: a case that is kept.
//!   [`suite`]: many runs, on all cores ([`parallel`]).
//! - [`process`], [`clock`]: what every process of the cluster is, whichever core runs in it.
//! - [`network`], [`links`], [`store`], [`accounts`]: the fakes. [`timer`]: how a core is woken;
//!   [`socket`]: how a server reads and writes a stream.
//! - [`firmware`]: what devices that keep the contract differ in. [`hostile`]: devices that do not
//!   keep it; [`tricks`]: what they do, and what the contract has them told.
//! - [`operator`]: who has devices do things, and checks what comes of it.
//! - [`device`], [`balancer`], [`conn`], [`logic`], [`logic_shell`]: the shells of the cores in this world.

pub mod accounts;
pub mod balancer;
pub mod clock;
pub mod conn;
pub mod device;
pub mod fault;
pub mod fingerprint;
pub mod firmware;
pub mod heap;
pub mod hostile;
pub mod inquest;
pub mod limits;
pub mod links;
pub mod logic;
pub mod logic_shell;
pub mod marks;
pub mod model;
pub mod network;
pub mod operator;
pub mod parallel;
pub mod people;
pub mod plan;
pub mod process;
pub mod regression;
pub mod run;
pub mod shrink;
pub mod shutdown;
pub mod socket;
pub mod stillness;
pub mod store;
pub mod suite;
pub mod timer;
pub mod trace;
pub mod tricks;
pub mod world;
