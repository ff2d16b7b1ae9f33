// SPDX-License-Identifier: Apache-2.0
//! What a sandbox asks, and whether it may: pure.

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use protocol::limits::{DOMAIN_CHARS_MAX, NAME_DATAGRAM_BYTES, NAME_DATAGRAM_BYTES_MAX};
use protocol::network::is_label;

use crate::network::session::{Policy, Ports};

/// Domains that are for one machine or one house and never for the internet (RFC 6761, 6762, 7686, 8375, 9476).
const NOT_PUBLIC: [&str; 8] =
    ["alt", "arpa", "home.arpa", "internal", "invalid", "local", "localhost", "onion"];

/// A question that is well formed.
#[derive(Debug)]
pub(super) struct Question {
    /// The number that the answer must have.
    pub(super) id: u16,
    /// What is asked, as it was written.
    pub(super) query: Query,
    /// The name in small letters, without the dot at its end.
    pub(super) name: String,
    /// The largest datagram that the asker takes.
    pub(super) datagram_bytes: usize,
    recursion_desired: bool,
}

/// What is done about a question.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// The host's name servers are asked; these ports of the answer's addresses are opened.
    Ask(Ports),
    /// The name is allowed, but of this kind there is nothing.
    Nothing,
    /// The name may not be asked for: as far as the sandbox is concerned, it does not exist.
    Deny(&'static str),
    /// Nobody is asked for this kind.
    Refuse,
}

/// Why there is no question.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Malformed {
    /// Not even a number to answer to.
    Silent,
    /// It is told so, under this number.
    Told(u16, ResponseCode),
}

impl Question {
    /// Reads one.
    pub(super) fn read(bytes: &[u8]) -> Result<Question, Malformed> {
        let id = match bytes {
            [high, low, flags, ..] if bytes.len() >= 12 && flags & 0x80 == 0 => {
                u16::from_be_bytes([*high, *low])
            }
            _ => return Err(Malformed::Silent),
        };
        let told = |code| Malformed::Told(id, code);
        let message = Message::from_vec(bytes).map_err(|_| told(ResponseCode::FormErr))?;
        if message.metadata.message_type != MessageType::Query {
            return Err(Malformed::Silent);
        }
        if message.metadata.op_code != OpCode::Query {
            return Err(told(ResponseCode::NotImp));
        }
        let [query] = message.queries.as_slice() else { return Err(told(ResponseCode::FormErr)) };
        if !message.answers.is_empty() || query.query_class() != DNSClass::IN {
            return Err(told(ResponseCode::Refused));
        }
        let name = plain_name(query.name()).ok_or(told(ResponseCode::FormErr))?;
        let offered = message.edns.as_ref().map_or(0, |edns| usize::from(edns.max_payload()));
        Ok(Question {
            id,
            query: Query::query(query.name().clone(), query.query_type()),
            name,
            datagram_bytes: offered.clamp(NAME_DATAGRAM_BYTES, NAME_DATAGRAM_BYTES_MAX),
            recursion_desired: message.metadata.recursion_desired,
        })
    }

    /// Decides what is done about it.
    pub(super) fn decide(&self, policy: &Policy) -> Decision {
        let of = |zone: &&&str| {
            self.name.strip_suffix(**zone).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        if !self.name.contains('.') || NOT_PUBLIC.iter().find(of).is_some() {
            return Decision::Deny("it is no name of the internet");
        }
        let Some(ports) = policy.domain(&self.name) else {
            return Decision::Deny("it is not on the allow-list");
        };
        match self.query.query_type() {
            RecordType::A => Decision::Ask(ports),
            // These name no address that would have to be open.
            RecordType::CNAME | RecordType::MX | RecordType::SRV | RecordType::TXT | RecordType::CAA => {
                Decision::Ask(Ports::Open)
            }
            // There is no IPv6, and no hint to it.
            RecordType::AAAA | RecordType::HTTPS | RecordType::SVCB => Decision::Nothing,
            _ => Decision::Refuse,
        }
    }

    /// Begins an answer.
    pub(super) fn answer(&self, code: ResponseCode) -> Message {
        let mut message = Message::response(self.id, OpCode::Query);
        message.metadata.response_code = code;
        message.metadata.recursion_desired = self.recursion_desired;
        message.metadata.recursion_available = true;
        message.add_query(self.query.clone());
        message
    }
}

/// Returns a name as text if its labels are those of host names: so no NUL, line break, dot or escape is in it.
pub(super) fn plain_name(name: &Name) -> Option<String> {
    let labels: Option<Vec<&str>> =
        name.iter().map(|label| std::str::from_utf8(label).ok().filter(|label| is_label(label))).collect();
    let text = labels?.join(".").to_ascii_lowercase();
    (!text.is_empty() && text.len() <= DOMAIN_CHARS_MAX).then_some(text)
}

#[cfg(test)]
mod tests {
    use protocol::network::Allowed;

    use super::*;

    fn asked(labels: &[&[u8]], kind: u16) -> Vec<u8> {
        let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in labels {
            bytes.push(u8::try_from(label.len()).unwrap());
            bytes.extend(*label);
        }
        bytes.push(0);
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 1]);
        bytes
    }

    fn allow(entries: &[&str]) -> Policy {
        Policy::Allow(entries.iter().map(|text| Allowed::parse(text).unwrap()).collect())
    }

    #[test]
    fn names_are_decided_by_the_allow_list_whatever_their_case() {
        let policy = allow(&["a.example:443", "*.b.example"]);
        let decide = |labels: &[&[u8]], kind| Question::read(&asked(labels, kind)).unwrap().decide(&policy);
        assert_eq!(decide(&[b"A", b"eXample"], 1), Decision::Ask(Ports::Only(vec![443])));
        assert_eq!(decide(&[b"x", b"b", b"example"], 1), Decision::Ask(Ports::All));
        assert_eq!(decide(&[b"x", b"b", b"example"], 28), Decision::Nothing);
        assert_eq!(decide(&[b"x", b"b", b"example"], 16), Decision::Ask(Ports::Open));
        assert_eq!(decide(&[b"x", b"b", b"example"], 252), Decision::Refuse);
        assert!(matches!(decide(&[b"b", b"example"], 1), Decision::Deny(_)));
        assert!(matches!(decide(&[b"a", b"example", b"evil", b"org"], 16), Decision::Deny(_)));
    }

    #[test]
    fn names_of_one_machine_or_house_go_nowhere() {
        for labels in
            [&[&b"localhost"[..]][..], &[b"db"], &[b"metadata", b"google", b"internal"], &[b"x", b"LOCAL"]]
        {
            let decision = Question::read(&asked(labels, 1)).unwrap().decide(&Policy::Public);
            assert!(matches!(decision, Decision::Deny(_)), "{labels:?}");
        }
        let decision = Question::read(&asked(&[b"notlocal", b"example"], 1)).unwrap().decide(&Policy::Public);
        assert_eq!(decision, Decision::Ask(Ports::Open));
    }

    #[test]
    fn odd_labels_are_malformed() {
        for label in [&b"a\0"[..], b"a.b", b"a\r\nb", b"a b", b"\xff", b"*", b"a\\", b"a%b", b"a/b"] {
            let read = Question::read(&asked(&[label, b"a", b"example"], 1));
            assert_eq!(read.unwrap_err(), Malformed::Told(0x1234, ResponseCode::FormErr), "{label:?}");
        }
    }

    #[test]
    fn what_is_no_question_is_never_asked_on() {
        let whole = asked(&[b"a", b"example"], 1);
        for length in 0..whole.len() {
            assert!(Question::read(&whole[..length]).is_err(), "{length}");
        }
        for (at, value) in [(2, 0x81), (2, 0x29), (5, 0), (5, 2), (7, 1), (whole.len() - 1, 3)] {
            let mut bytes = whole.clone();
            bytes[at] = value;
            assert!(Question::read(&bytes).is_err(), "{at} {value}");
        }
        let mut seed = 1_u32;
        for _ in 0..20_000 {
            let mut bytes = whole.clone();
            for _ in 0..3 {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let at = usize::try_from(seed >> 8).unwrap() % bytes.len();
                bytes[at] = seed.to_be_bytes()[0];
            }
            if let Ok(question) = Question::read(&bytes) {
                assert!(question.name.split('.').all(is_label));
            }
        }
    }
}
