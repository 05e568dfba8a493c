//! Whether the pages of a Parquet table hold what they promise.
//!
//! The library takes a page header's numbers for true: it reserves memory by them before it reads a value. So they are held against the
//! footer and the file first, in one walk over the headers alone.

use std::io::Cursor;

use polars_parquet::{
    parquet::compression::Compression,
    read::{ColumnChunkMetadata, FileMetadata},
};
use polars_parquet_format::{Encoding, PageHeader, PageType, thrift::protocol::TCompactInputProtocol};

/// Rows that a byte of a file holds at most. The number of a query alone takes more than a bit once it is packed: what promises more is
/// a bomb.
const DENSEST: usize = 16;

/// Bytes that a packed byte becomes at most: Snappy, the one codec that tables are written in, copies 64 bytes for three.
const LOOSEST: usize = 22;

/// What tables are written in.
const ENCODINGS: [Encoding; 4] = [Encoding::PLAIN, Encoding::PLAIN_DICTIONARY, Encoding::RLE_DICTIONARY, Encoding::RLE];

/// A promise that does not hold: what was expected and what was found.
pub type Broken = (String, String);

/// Holds every number that a reader reserves memory by against the file's bytes.
///
/// # Errors
/// What the first page that lies was expected to say.
pub fn check(bytes: &[u8], footer: &FileMetadata) -> Result<(), Broken> {
    let most = bytes.len().saturating_mul(DENSEST);
    let rows = footer.row_groups.iter().map(|group| group.num_rows()).fold(0, usize::saturating_add);
    at_most("rows in the footer", rows.max(footer.num_rows), most)?;
    equal("rows of all groups", rows, footer.num_rows)?;
    for group in &footer.row_groups {
        for column in group.parquet_columns() {
            let name = column.descriptor().path_in_schema.first().map_or("", |name| name.as_str());
            chunk(bytes, column, group.num_rows()).map_err(|(expected, found)| {
                (format!("{expected} in column {}", crate::output::quoted(name)), found)
            })?;
        }
    }
    Ok(())
}

/// The pages of a column in one group of rows.
fn chunk(bytes: &[u8], column: &ColumnChunkMetadata, rows: usize) -> Result<(), Broken> {
    equal("values", column.num_values(), rows)?;
    let codec = column.compression();
    if !matches!(codec, Compression::Snappy | Compression::Uncompressed) {
        return Err(("Snappy".into(), format!("{codec:?}")));
    }
    let start = column.dictionary_page_offset().unwrap_or_else(|| column.data_page_offset());
    let end = start.checked_add(column.compressed_size());
    let range = usize::try_from(start).ok().zip(end.and_then(|end| usize::try_from(end).ok()));
    let mut rest = range.and_then(|(start, end)| bytes.get(start..end)).ok_or_else(|| {
        (format!("pages within the file's {} bytes", bytes.len()), format!("{} from {start}", column.compressed_size()))
    })?;
    let mut left = rows;
    let mut first = true;
    while left > 0 {
        let mut cursor = Cursor::new(rest);
        let header = PageHeader::read_from_in_protocol(&mut TCompactInputProtocol::new(&mut cursor, rest.len()))
            .map_err(|error| ("the header of a page".into(), crate::output::plain(&error.to_string()).into_owned()))?;
        let body = &rest[(cursor.position() as usize).min(rest.len())..];
        let packed = at_most("bytes of a page", header.compressed_page_size, body.len())?;
        let size = at_most(
            "unpacked bytes of a page",
            header.uncompressed_page_size,
            packed.saturating_mul(LOOSEST) + LOOSEST,
        )?;
        match (header.type_, &header.data_page_header, &header.dictionary_page_header) {
            // Any value of a dictionary takes a byte at least.
            (PageType::DICTIONARY_PAGE, _, Some(page)) if first => {
                at_most("entries of a dictionary", page.num_values, size)?;
            }
            (PageType::DATA_PAGE, Some(page), _) => {
                left -= at_most("values of a page", page.num_values, left)?;
                if !ENCODINGS.contains(&page.encoding) {
                    return Err(("a known encoding".into(), page.encoding.0.to_string()));
                }
            }
            (kind, ..) => return Err(("a page of data".into(), format!("one of kind {}", kind.0))),
        }
        rest = &body[packed..];
        first = false;
    }
    Ok(())
}

/// A count that is at most `most`.
fn at_most(what: &str, found: impl TryInto<usize> + Copy + ToString, most: usize) -> Result<usize, Broken> {
    match found.try_into() {
        Ok(count) if count <= most => Ok(count),
        _ => Err((format!("at most {most} {what}"), found.to_string())),
    }
}

fn equal(what: &str, found: impl TryInto<usize> + Copy + ToString, expected: usize) -> Result<(), Broken> {
    if found.try_into().is_ok_and(|count| count == expected) {
        Ok(())
    } else {
        Err((format!("{expected} {what}"), found.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use polars::prelude::*;
    use polars_parquet_format::thrift::protocol::TCompactOutputProtocol;

    use super::*;

    /// Three rows of one column of numbers.
    fn table(codec: ParquetCompression) -> (Vec<u8>, std::sync::Arc<FileMetadata>) {
        let mut bytes = Vec::new();
        let mut frame = DataFrame::new_infer_height(vec![Column::new("query".into(), [7u32, 8, 7])]).unwrap();
        ParquetWriter::new(&mut bytes).with_compression(codec).finish(&mut frame).unwrap();
        let footer = ParquetReader::new(Cursor::new(&bytes)).get_metadata().unwrap().clone();
        (bytes, footer)
    }

    /// The table with its pages' headers changed by `lie`, which keeps their lengths.
    fn with(lie: impl Fn(&mut PageHeader)) -> Result<(), Broken> {
        let (mut bytes, footer) = table(ParquetCompression::Snappy);
        let column = &footer.row_groups[0].parquet_columns()[0];
        let mut at = column.byte_range().start as usize;
        while at < column.byte_range().end as usize {
            let mut cursor = Cursor::new(&bytes[at..]);
            let mut header =
                PageHeader::read_from_in_protocol(&mut TCompactInputProtocol::new(&mut cursor, 1000)).unwrap();
            let (length, body) = (cursor.position() as usize, header.compressed_page_size as usize);
            lie(&mut header);
            let mut written = Vec::new();
            header.write_to_out_protocol(&mut TCompactOutputProtocol::new(&mut written)).unwrap();
            assert_eq!(written.len(), length);
            bytes[at..at + length].copy_from_slice(&written);
            at += length + body;
        }
        check(&bytes, &footer)
    }

    fn data(count: i32) -> impl Fn(&mut PageHeader) {
        move |header| header.data_page_header.iter_mut().for_each(|page| page.num_values = count)
    }

    #[test]
    fn what_the_writer_writes_holds() {
        assert_eq!(with(|_| ()), Ok(()));
    }

    #[test]
    fn a_page_does_not_hold_less_than_nothing() {
        let expected = ("at most 3 values of a page in column `query`".to_string(), "-1".to_string());
        assert_eq!(with(data(-1)), Err(expected));
    }

    #[test]
    fn a_page_does_not_hold_more_than_its_rows() {
        let expected = ("at most 3 values of a page in column `query`".to_string(), "4".to_string());
        assert_eq!(with(data(4)), Err(expected));
    }

    #[test]
    fn a_dictionary_has_no_more_entries_than_bytes() {
        let lie = |header: &mut PageHeader| {
            header.dictionary_page_header.iter_mut().for_each(|page| page.num_values = 63);
        };
        let expected = ("at most 8 entries of a dictionary in column `query`".to_string(), "63".to_string());
        assert_eq!(with(lie), Err(expected));
    }

    #[test]
    fn a_page_does_not_unpack_to_more_than_its_bytes_can() {
        let lie = |header: &mut PageHeader| header.compressed_page_size = 0;
        assert!(with(lie).is_err());
    }

    #[test]
    fn another_codec_is_named() {
        let (bytes, footer) = table(ParquetCompression::Zstd(None));
        let expected = ("Snappy in column `query`".to_string(), "Zstd".to_string());
        assert_eq!(check(&bytes, &footer), Err(expected));
    }

    #[test]
    fn an_unknown_encoding_is_named() {
        let lie = |header: &mut PageHeader| {
            header.data_page_header.iter_mut().for_each(|page| page.encoding = Encoding::BYTE_STREAM_SPLIT);
        };
        let expected = ("a known encoding in column `query`".to_string(), "9".to_string());
        assert_eq!(with(lie), Err(expected));
    }
}
