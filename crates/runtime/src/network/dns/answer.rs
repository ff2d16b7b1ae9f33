// SPDX-License-Identifier: Apache-2.0
//! What may be told of an answer: pure. What comes from name servers is a stranger's too.

use std::net::Ipv4Addr;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use protocol::limits::{NAME_CHAIN_MAX, NAME_LIFE_MAX, PINS_PER_ANSWER_MAX};
use protocol::network::forbidden;

use super::question::plain_name;

/// What is told.
#[derive(Debug)]
pub(super) struct Told {
    /// How it went.
    pub(super) code: ResponseCode,
    /// The records: the names that lead one to the other, then what was asked for.
    pub(super) records: Vec<Record>,
    /// The addresses among them.
    pub(super) addresses: Vec<Ipv4Addr>,
    /// The addresses that were left out because no sandbox may reach them.
    pub(super) withheld: Vec<Ipv4Addr>,
    /// How long it may be kept.
    pub(super) life: Duration,
}

/// Says whether a message answers this query.
pub(super) fn answers(message: &Message, id: u16, query: &Query) -> bool {
    let same = |own: &Query| {
        own.query_type() == query.query_type()
            && own.query_class() == DNSClass::IN
            && own.name().eq_ignore_root(query.name())
    };
    message.metadata.message_type == MessageType::Response
        && message.metadata.id == id
        && matches!(message.queries.as_slice(), [own] if same(own))
}

/// Picks what may be told: the names that lead from the one that was asked for to the last, and what is known of that.
/// All else in the message is left out, whatever it is.
pub(super) fn tell(message: Message, query: &Query) -> Told {
    let code = match message.metadata.response_code {
        code @ (ResponseCode::NoError | ResponseCode::NXDomain) => code,
        _ => ResponseCode::ServFail,
    };
    let mut told = Told { code, records: vec![], addresses: vec![], withheld: vec![], life: NAME_LIFE_MAX };
    if code == ResponseCode::ServFail {
        return told;
    }
    let mut name: Name = query.name().clone();
    let wanted = query.query_type();
    for _ in 0..NAME_CHAIN_MAX {
        let here = message
            .answers
            .iter()
            .filter(|record| record.dns_class == DNSClass::IN && record.name.eq_ignore_root(&name));
        let here: Vec<&Record> = here.collect();
        let found = here.iter().filter(|record| record.record_type() == wanted);
        found.for_each(|record| told.take(record));
        let next = here.iter().find_map(|record| match &record.data {
            RData::CNAME(target) if wanted != RecordType::CNAME => Some((*record, target.0.clone())),
            _ => None,
        });
        let Some((record, target)) = next.filter(|(_, target)| plain_name(target).is_some()) else {
            return told;
        };
        told.keep(record.clone());
        name = target;
    }
    // It leads in a circle, or too far.
    Told { code: ResponseCode::ServFail, records: vec![], addresses: vec![], ..told }
}

impl Told {
    fn take(&mut self, record: &Record) {
        match &record.data {
            RData::A(address) if forbidden(address.0).is_some() => self.withheld.push(address.0),
            RData::A(address) => {
                if self.addresses.len() < PINS_PER_ANSWER_MAX {
                    self.addresses.push(address.0);
                    self.keep(record.clone());
                }
            }
            _ => self.keep(record.clone()),
        }
    }

    fn keep(&mut self, mut record: Record) {
        let life = Duration::from_secs(u64::from(record.ttl)).min(NAME_LIFE_MAX);
        record.ttl = u32::try_from(life.as_secs()).unwrap_or(0);
        self.life = self.life.min(life);
        self.records.push(record);
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::rdata::{A, CNAME};

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn address(of: &str, address: [u8; 4], ttl: u32) -> Record {
        Record::from_rdata(name(of), ttl, RData::A(A(Ipv4Addr::from(address))))
    }

    fn alias(of: &str, to: &str) -> Record {
        Record::from_rdata(name(of), 60, RData::CNAME(CNAME(name(to))))
    }

    fn told(records: Vec<Record>) -> Told {
        let mut message = Message::response(1, hickory_proto::op::OpCode::Query);
        message.answers = records;
        tell(message, &Query::query(name("a.example."), RecordType::A))
    }

    #[test]
    fn addresses_that_nobody_may_reach_are_left_out() {
        let told = told(vec![
            address("a.example.", [1, 2, 3, 4], 30),
            address("A.example.", [169, 254, 169, 254], 0),
            address("a.example.", [127, 0, 0, 1], 0),
            address("a.example.", [10, 0, 0, 1], 0),
        ]);
        assert_eq!(told.addresses, [Ipv4Addr::new(1, 2, 3, 4)]);
        assert_eq!((told.withheld.len(), told.records.len()), (3, 1));
        assert_eq!(told.life, Duration::from_secs(30));
    }

    #[test]
    fn names_are_followed_and_what_does_not_belong_to_them_is_left_out() {
        let odd = Name::from_labels([&b"d\0"[..], b"example"]).unwrap();
        let told = told(vec![
            address("other.example.", [9, 9, 9, 9], 60),
            alias("a.example.", "b.example."),
            alias("b.example.", "c.example."),
            address("c.example.", [1, 2, 3, 4], 1_000_000),
            Record::from_rdata(name("c.example."), 5, RData::CNAME(CNAME(odd))),
        ]);
        assert_eq!(told.addresses, [Ipv4Addr::new(1, 2, 3, 4)]);
        assert_eq!(told.records.len(), 3);
        assert_eq!(told.records.iter().map(|record| record.ttl).max(), Some(300));
        assert_eq!(told.life, Duration::from_secs(60));
    }

    #[test]
    fn circles_end() {
        let told = told(vec![alias("a.example.", "b.example."), alias("b.example.", "a.example.")]);
        assert_eq!((told.code, told.records.len()), (ResponseCode::ServFail, 0));
    }

    #[test]
    fn only_the_answer_to_the_question_is_one() {
        let query = Query::query(name("a.example."), RecordType::A);
        let mut message = Message::response(7, hickory_proto::op::OpCode::Query);
        assert!(!answers(&message, 7, &query));
        message.add_query(Query::query(name("A.example."), RecordType::A));
        assert!(answers(&message, 7, &query));
        assert!(!answers(&message, 8, &query));
        assert!(!answers(&message, 7, &Query::query(name("b.example."), RecordType::A)));
        assert!(!answers(&message, 7, &Query::query(name("a.example."), RecordType::TXT)));
    }
}
