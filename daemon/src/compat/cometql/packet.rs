//! MySQL's packets: three bytes of length, a sequence number, and the payload. No I/O.

/// Longest payload of one packet. A packet of this length is continued by the next one.
const MAX_PAYLOAD: usize = 0xff_ffff;

/// Length of a packet's head in bytes.
const HEAD: usize = 4;

/// The packet at the beginning of what a client has sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received<'a> {
    Incomplete,
    Packet {
        sequence: u8,
        payload: &'a [u8],
        /// Length with the head.
        length: usize,
    },
    /// The payload is longer than accepted. The rest of it may not have arrived.
    TooLong {
        sequence: u8,
        /// Length with the head. `None`: further packets continue this one.
        length: Option<usize>,
    },
}

impl<'a> Received<'a> {
    /// Parses the next packet. `max`: longest payload that is accepted.
    pub(crate) fn parse(bytes: &'a [u8], max: usize) -> Self {
        let Some((&[a, b, c, sequence], rest)) = bytes.split_first_chunk() else {
            return Self::Incomplete;
        };
        let payload = u32::from_le_bytes([a, b, c, 0]) as usize;
        let length = HEAD + payload;
        if payload > max {
            let length = (payload < MAX_PAYLOAD).then_some(length);
            return Self::TooLong { sequence, length };
        }
        match rest.get(..payload) {
            None => Self::Incomplete,
            Some(payload) => Self::Packet {
                sequence,
                payload,
                length,
            },
        }
    }
}

/// Writes packets with increasing sequence numbers.
pub(crate) struct PacketWriter {
    pub(crate) out: Vec<u8>,
    sequence: u8,
}

impl PacketWriter {
    /// A writer whose first packet has this sequence number.
    pub(crate) fn new(sequence: u8) -> Self {
        let out = Vec::new();
        Self { out, sequence }
    }

    /// Writes one packet, or several if the payload is longer than a packet.
    pub(crate) fn write(&mut self, payload: &[u8]) {
        let mut rest = payload;
        loop {
            let (part, after) = rest.split_at(rest.len().min(MAX_PAYLOAD));
            let length = u32::try_from(part.len()).expect("at most 24 bits");
            self.out.extend_from_slice(&length.to_le_bytes()[..3]);
            self.out.push(self.sequence);
            self.out.extend_from_slice(part);
            self.sequence = self.sequence.wrapping_add(1);
            if part.len() < MAX_PAYLOAD {
                return;
            }
            rest = after;
        }
    }
}

/// One packet with this payload.
pub(crate) fn packet(sequence: u8, payload: &[u8]) -> Vec<u8> {
    let mut writer = PacketWriter::new(sequence);
    writer.write(payload);
    writer.out
}

/// Appends a number in MySQL's form of variable length.
pub(crate) fn put_number(out: &mut Vec<u8>, number: u64) {
    let bytes = number.to_le_bytes();
    match number {
        0..=250 => out.push(bytes[0]),
        251..=0xffff => {
            out.push(0xfc);
            out.extend_from_slice(&bytes[..2]);
        }
        0x1_0000..=0xff_ffff => {
            out.push(0xfd);
            out.extend_from_slice(&bytes[..3]);
        }
        _ => {
            out.push(0xfe);
            out.extend_from_slice(&bytes);
        }
    }
}

/// Appends a text with its length.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put_number(out, text.len() as u64);
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_read_when_it_is_complete() {
        let stream = [packet(3, b"first"), packet(0, b"")].concat();
        for length in 0..9 {
            let parsed = Received::parse(&stream[..length], 10);
            assert_eq!(parsed, Received::Incomplete, "{length}");
        }
        let first = Received::Packet {
            sequence: 3,
            payload: b"first",
            length: 9,
        };
        assert_eq!(Received::parse(&stream, 5), first);
        let empty = Received::Packet {
            sequence: 0,
            payload: b"",
            length: 4,
        };
        assert_eq!(Received::parse(&stream[9..], 5), empty);
    }

    #[test]
    fn a_packet_that_is_too_long_is_known_by_its_head() {
        let (sequence, length) = (7, Some(15));
        let too_long = Received::TooLong { sequence, length };
        assert_eq!(Received::parse(&[11, 0, 0, 7], 10), too_long);
        let length = None;
        let continued = Received::TooLong { sequence, length };
        assert_eq!(Received::parse(&[0xff, 0xff, 0xff, 7], 10), continued);
    }

    #[test]
    fn a_payload_longer_than_a_packet_is_split() {
        let bytes = packet(255, &vec![b'x'; MAX_PAYLOAD + 5]);
        assert_eq!(bytes.len(), MAX_PAYLOAD + 5 + 2 * HEAD);
        assert_eq!(bytes[..4], [0xff, 0xff, 0xff, 255]);
        assert_eq!(bytes[MAX_PAYLOAD + 4..][..4], [5, 0, 0, 0]);
        let full = packet(0, &vec![b'x'; MAX_PAYLOAD]);
        assert_eq!(
            full[MAX_PAYLOAD + 4..],
            [0, 0, 0, 1],
            "an empty packet ends it"
        );
    }

    #[test]
    fn numbers_have_the_shortest_form() {
        let form = |number| {
            let mut out = Vec::new();
            put_number(&mut out, number);
            out
        };
        assert_eq!(form(250), [250]);
        assert_eq!(form(251), [0xfc, 251, 0]);
        assert_eq!(form(0x1_0000), [0xfd, 0, 0, 1]);
        assert_eq!(form(0x100_0000), [0xfe, 0, 0, 0, 1, 0, 0, 0, 0]);
    }
}
