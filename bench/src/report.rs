//! The results: a row for each question, a line for each server in the row, and the comparison of Comet with the
//! others.

mod figures;
mod output;
mod results;
mod row;
mod table;

pub(crate) use figures::{Figures, median, percentile};
pub(crate) use results::{Curve, Report};
pub(crate) use row::{Limit, Row};
