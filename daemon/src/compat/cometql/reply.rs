//! The server's replies as packets. All columns are texts, so PHP gets strings.

use super::{
    error::SqlError,
    login::CHARSET,
    packet::{PacketWriter, put_number, put_text},
};

/// The status of a connection: every statement takes effect at once (SERVER_STATUS_AUTOCOMMIT), and whether the client has
/// opened a transaction (SERVER_STATUS_IN_TRANS).
fn status(in_transaction: bool) -> [u8; 2] {
    [2 | u8::from(in_transaction), 0]
}

/// A reply to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    Ok {
        affected: u64,
        id: u64,
    },
    Rows(Rows),
    Error(SqlError),
    /// A list of columns with no entry.
    NoFields,
}

/// A result set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rows {
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Reply {
    pub(crate) const OK: Self = Self::Ok { affected: 0, id: 0 };

    /// The reply as packets, to a packet with this sequence number.
    pub(crate) fn packets(&self, sequence: u8, in_transaction: bool) -> Vec<u8> {
        let mut writer = PacketWriter::new(sequence.wrapping_add(1));
        let status = status(in_transaction);
        match self {
            Self::Ok { affected, id } => writer.write(&ok(*affected, *id, status)),
            Self::Error(error) => writer.write(&error_payload(error)),
            Self::NoFields => writer.write(&eof(status)),
            Self::Rows(rows) => rows.write(&mut writer, status),
        }
        writer.out
    }
}

impl From<Result<Self, SqlError>> for Reply {
    fn from(result: Result<Self, SqlError>) -> Self {
        result.unwrap_or_else(Self::Error)
    }
}

impl Rows {
    /// The rows of columns with these names.
    pub(crate) fn new<const N: usize>(columns: [&str; N], rows: Vec<[String; N]>) -> Self {
        Self {
            columns: columns.map(str::to_owned).into(),
            rows: rows.into_iter().map(Vec::from).collect(),
        }
    }

    fn write(&self, writer: &mut PacketWriter, status: [u8; 2]) {
        let mut count = Vec::new();
        put_number(&mut count, self.columns.len() as u64);
        writer.write(&count);
        for name in &self.columns {
            writer.write(&column(name));
        }
        writer.write(&eof(status));
        for row in &self.rows {
            let mut out = Vec::new();
            row.iter()
                .for_each(|value| put_text(&mut out, value.as_bytes()));
            writer.write(&out);
        }
        writer.write(&eof(status));
    }
}

fn ok(affected: u64, id: u64, status: [u8; 2]) -> Vec<u8> {
    let mut out = vec![0];
    put_number(&mut out, affected);
    put_number(&mut out, id);
    out.extend_from_slice(&status);
    out.extend_from_slice(&[0, 0]); // warnings
    out
}

fn eof(status: [u8; 2]) -> Vec<u8> {
    [&[0xfe, 0, 0][..], &status].concat()
}

/// The payload of an error.
pub(crate) fn error_payload(error: &SqlError) -> Vec<u8> {
    let mut out = vec![0xff];
    out.extend_from_slice(&error.code().to_le_bytes());
    out.extend_from_slice(b"#HY000");
    out.extend_from_slice(error.to_string().as_bytes());
    out
}

/// The definition of a column.
fn column(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    put_text(&mut out, b"def"); // catalog
    for text in ["", "", "", name, ""] {
        put_text(&mut out, text.as_bytes()); // schema, table, original table, name, original name
    }
    out.push(12); // the number of bytes that follow
    out.extend_from_slice(&[CHARSET, 0]);
    out.extend_from_slice(&77_u32.to_le_bytes()); // width in characters; the value of the original server
    out.push(0xfd); // VAR_STRING
    out.extend_from_slice(&[1, 0, 31]); // NOT NULL; no decimals
    out.extend_from_slice(&[0, 0]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ok_and_error_have_their_forms() {
        let ok = Reply::Ok { affected: 1, id: 5 };
        assert_eq!(ok.packets(0, false), [7, 0, 0, 1, 0, 1, 5, 2, 0, 0, 0]);
        let error = Reply::Error(SqlError::Denied).packets(255, false);
        assert_eq!(error[..6], [22, 0, 0, 0, 0xff, 0x93]);
        assert_eq!(&error[6..], b"\x01#HY000Access denied");
        assert_eq!(
            Reply::NoFields.packets(0, true),
            [5, 0, 0, 1, 0xfe, 0, 0, 3, 0]
        );
    }

    #[test]
    fn a_result_set_has_columns_and_rows_in_a_row_of_packets() {
        let rows = Rows::new(
            ["name", "users"],
            vec![["SimplePhpChat".into(), "0".into()]],
        );
        let expected: Vec<u8> = [
            &[1, 0, 0, 1, 2][..],
            b"\x1a\0\0\x02\x03def\0\0\0\x04name\0\x0c\x2d\0\x4d\0\0\0\xfd\x01\0\x1f\0\0",
            b"\x1b\0\0\x03\x03def\0\0\0\x05users\0\x0c\x2d\0\x4d\0\0\0\xfd\x01\0\x1f\0\0",
            b"\x05\0\0\x04\xfe\0\0\x02\0",
            b"\x10\0\0\x05\x0dSimplePhpChat\x010",
            b"\x05\0\0\x06\xfe\0\0\x02\0",
        ]
        .concat();
        assert_eq!(Reply::Rows(rows).packets(0, false), expected);
    }
}
