//! Which streams a dump is cut into: pure arithmetic on the sizes of tables.
//!
//! A stream is one `pg_dump`, so a table cannot be in two of them, and everything that is not a big table is in one:
//! `main`. Big are the largest tables, as many as it takes until `main` is a small part of the whole; then whatever
//! order the jobs end in, none waits for `main` alone. A small database has few streams: each costs a connection and a
//! second look at the catalogs. How a stream is dumped is in `dump`, how it is loaded in `load`.

use std::fmt::Write as _;

/// A smaller table is never a stream of its own.
const BIG_BYTES_MIN: u64 = 32 << 20;
/// Streams are made for at least so many jobs: where it is loaded there may be more of them than here.
const JOBS_MIN: u64 = 4;
/// `main` may take this fraction of what each job has to do.
const MAIN_FRACTION: u64 = 4;
/// No more tables than this are streams of their own.
const BIG_TABLES_MAX: usize = 128;

/// The stream with the definitions of everything.
pub const SCHEMA_STREAM: &str = "schema";
/// The stream with the rows of all tables that are not big, the large objects and the values of sequences.
pub const MAIN_STREAM: &str = "main";

/// What is in a stream, with tables as indexes into the sizes that were given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Definitions, no rows.
    Schema,
    /// Everything but the rows of these tables.
    AllBut(Vec<usize>),
    /// The rows of this table.
    Table(usize),
}

/// One stream to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// What it holds.
    pub content: Content,
    /// What is expected: bytes on disk, near to those of the dump.
    pub bytes: u64,
}

/// The streams of a database: the schema first, then the longest first.
///
/// `sizes` are those of the tables whose rows are dumped (0 for the others), `other_bytes` of what only `main` can hold
/// (large objects), `jobs` the number of dumps at once.
pub fn plan(sizes: &[u64], other_bytes: u64, jobs: usize) -> Vec<Planned> {
    let big = big_tables(sizes, other_bytes, jobs);
    let main_bytes = other_bytes + sizes.iter().sum::<u64>() - big.iter().map(|at| sizes[*at]).sum::<u64>();
    let table = |at: &usize| Planned {
        content: Content::Table(*at),
        bytes: sizes[*at],
    };
    let mut data: Vec<Planned> = big.iter().map(table).collect();
    data.push(Planned {
        content: Content::AllBut(big),
        bytes: main_bytes,
    });
    data.sort_by_key(|stream| std::cmp::Reverse(stream.bytes));
    let schema = Planned {
        content: Content::Schema,
        bytes: 0,
    };
    std::iter::once(schema).chain(data).collect()
}

/// The tables that get streams of their own, largest first.
fn big_tables(sizes: &[u64], other_bytes: u64, jobs: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(sizes[*at]));
    let total = other_bytes + sizes.iter().sum::<u64>();
    let main_bytes_max = (total / (JOBS_MIN.max(jobs as u64) * MAIN_FRACTION)).max(BIG_BYTES_MIN);
    let mut main_bytes = total;
    order.retain(|at| {
        let take = main_bytes > main_bytes_max && sizes[*at] >= BIG_BYTES_MIN;
        main_bytes -= if take { sizes[*at] } else { 0 };
        take
    });
    order.truncate(BIG_TABLES_MAX);
    order
}

/// `table.<schema>.<name>`, with everything but letters, digits, `_` and `-` as `%` and two hexadecimal digits a byte.
pub fn table_stream(schema: &str, name: &str) -> String {
    let mut text = "table".to_owned();
    for part in [schema, name] {
        text.push('.');
        for byte in part.bytes() {
            if byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' {
                text.push(char::from(byte));
            } else {
                let _ = write!(text, "%{byte:02x}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    fn shape(sizes: &[u64], other_bytes: u64, jobs: usize) -> String {
        let name = |stream: &Planned| match &stream.content {
            Content::Schema => "schema".to_owned(),
            Content::AllBut(_) => "main".to_owned(),
            Content::Table(at) => at.to_string(),
        };
        plan(sizes, other_bytes, jobs).iter().map(name).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn big_tables_get_streams_of_their_own() {
        for (what, sizes, other_bytes, jobs, expected) in [
            ("nothing", vec![], 0, 2, "schema main"),
            ("a young server", vec![20 * MIB, 10 * MIB, 3 * MIB], 0, 2, "schema main"),
            ("one table that is nearly all", vec![MIB, 60 * MIB, MIB], 0, 2, "schema 1 main"),
            ("many small tables", vec![8 * MIB; 100], 0, 2, "schema main"),
            (
                "a few hundred MiB",
                vec![88 * MIB, 18 * MIB, 88 * MIB, MIB],
                0,
                2,
                "schema 0 2 main",
            ),
            (
                "large objects cannot be elsewhere",
                vec![50 * MIB, MIB],
                400 * MIB,
                2,
                "schema main 0",
            ),
            (
                "a grown server",
                vec![51 * GIB, 22 * GIB, 8 * GIB, 6 * GIB, 3 * GIB, GIB, GIB, GIB],
                0,
                2,
                "schema 0 1 2 3 4 main",
            ),
            (
                "more jobs cut finer",
                vec![51 * GIB, 22 * GIB, 8 * GIB, 6 * GIB, 3 * GIB, GIB, GIB, GIB],
                0,
                16,
                "schema 0 1 2 3 4 5 6 main",
            ),
        ] {
            assert_eq!(shape(&sizes, other_bytes, jobs), expected, "{what}");
        }
    }

    /// When the last job ends, if each takes the next stream as soon as it is free.
    fn end(streams: &[Planned], jobs: usize) -> u64 {
        let mut free_at = vec![0; jobs];
        for stream in streams {
            free_at.sort_unstable();
            free_at[0] += stream.bytes;
        }
        free_at.into_iter().max().unwrap_or(0)
    }

    #[test]
    fn no_job_waits_long_for_the_others() {
        // A third table smaller each time, the same for all, one that is half of everything, and a jumble.
        let falling: Vec<u64> = (0..40).map(|n| (300 * GIB) >> (n / 2)).collect();
        let even = vec![GIB; 100];
        let half: Vec<u64> = std::iter::once(200 * GIB).chain([2 * GIB; 100]).collect();
        let jumble: Vec<u64> = (1..200_u64).map(|n| n * 7919 % 211 * 300 * MIB).collect();
        for sizes in [falling, even, half, jumble] {
            for jobs in [1, 2, 3, 4, 8] {
                let streams = plan(&sizes, 0, jobs);
                let total: u64 = sizes.iter().sum();
                let largest = sizes.iter().max().copied().unwrap_or(0);
                // A table cannot be cut: nothing could be quicker than this.
                let best = largest.max(total / jobs as u64);
                let needed = end(&streams, jobs);
                assert!(needed * 4 <= best * 5, "{jobs} jobs, {} streams: {needed} of {best}", streams.len());
                assert!(streams.len() <= BIG_TABLES_MAX + 2);
            }
        }
    }

    #[test]
    fn every_table_is_in_exactly_one_data_stream() {
        let sizes: Vec<u64> = (0..300).map(|n| n * 3 * MIB).collect();
        let streams = plan(&sizes, 0, 2);
        let mut alone: Vec<usize> = Vec::new();
        let mut left_out = Vec::new();
        for stream in &streams {
            match &stream.content {
                Content::Schema => assert_eq!(*stream, streams[0]),
                Content::AllBut(tables) => left_out.clone_from(tables),
                Content::Table(at) => alone.push(*at),
            }
        }
        assert_eq!(alone, left_out);
        assert!(!alone.is_empty() && streams.iter().map(|stream| stream.bytes).sum::<u64>() == sizes.iter().sum::<u64>());
    }

    #[test]
    fn names_of_streams_are_names_of_items() {
        for (schema, name, expected) in [
            ("public", "state_groups_state", "table.public.state_groups_state"),
            ("Oth\"er", "a.b/c %", "table.Oth%22er.a%2eb%2fc%20%25"),
            ("ü", "-", "table.%c3%bc.-"),
        ] {
            assert_eq!(table_stream(schema, name), expected);
        }
    }
}
