//! Pure. Statuses and reasons of the contract: number on the wire, name in logs and metrics.

use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($($(#[$doc:meta])* $enum:ident { $($(#[$variant_doc:meta])* $variant:ident = $code:literal $name:literal,)+ })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $enum {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $enum {
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The byte on the wire.
            pub const fn code(self) -> u8 {
                match self { $(Self::$variant => $code,)+ }
            }

            /// The contract's name for it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// `None` for a number that the contract does not list.
            pub const fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)+ _ => None }
            }
        }

        impl std::fmt::Display for $enum {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }
    )+};
}

codes! {
    /// How a login ends.
    LoginStatus {
        Ok = 0 "ok",
        /// Unknown account, wrong proof, or a nonce used before; never told apart.
        Refused = 1 "refused",
        Disabled = 2 "disabled",
        ClockSkew = 3 "clock_skew",
        Full = 4 "full",
        Busy = 5 "busy",
        Malformed = 6 "malformed",
    }

    /// How an Attach or a resumption ends.
    AttachStatus {
        Ok = 0 "ok",
        NotAdmitted = 1 "not_admitted",
        Full = 2 "full",
        Draining = 3 "draining",
    }

    /// What became of a Telemetry frame.
    AckStatus {
        /// Durable: the device may forget the records.
        Stored = 0 "stored",
        /// Cannot be cut into records; not to be sent again.
        Malformed = 1 "malformed",
        /// Nothing of the frame is stored; to be sent again.
        Overloaded = 2 "overloaded",
    }

    /// What a device says to a command.
    CommandStatus {
        Ok = 0 "ok",
        Failed = 1 "failed",
        Unsupported = 2 "unsupported",
        Busy = 3 "busy",
        /// Not begun: its deadline had passed.
        Expired = 4 "expired",
    }

    /// Why the cluster ends a connection.
    CloseReason {
        ProtocolError = 1 "protocol_error",
        Idle = 2 "idle",
        Replaced = 3 "replaced",
        Disabled = 4 "disabled",
        Shutdown = 5 "shutdown",
        SlowReader = 6 "slow_reader",
        AttachTimeout = 7 "attach_timeout",
        CloneSuspected = 8 "clone_suspected",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_finds_its_way_back_and_an_unknown_one_does_not() {
        for &reason in CloseReason::ALL {
            assert_eq!(CloseReason::from_code(reason.code()), Some(reason));
        }
        assert_eq!(CloseReason::from_code(0), None);
        assert_eq!(CloseReason::from_code(9), None);
        assert_eq!(CloseReason::CloneSuspected.to_string(), "clone_suspected");
    }
}
