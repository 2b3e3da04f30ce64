//! The statements of CometQL.

/// A statement. Names of tables and columns are not checked here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Statement {
    Insert {
        table: String,
        /// `None`: all columns, in the order of the table.
        columns: Option<Vec<String>>,
        values: Vec<String>,
    },
    Select {
        table: String,
        /// `None`: all columns, in the order of the table.
        columns: Option<Vec<String>>,
        conditions: Vec<Condition>,
        limit: Option<usize>,
    },
    Delete {
        table: String,
        conditions: Vec<Condition>,
    },
    /// A `SELECT` without a table: the items, and whether there is a row.
    Facts(Vec<Fact>, bool),
    Show(Show),
    Describe(String),
    Use(String),
    /// A statement that clients send on their own, and that needs no action: `SET`.
    Nothing,
    /// `BEGIN` (true) or `COMMIT` (false). Every statement takes effect at once, but clients want to see that a transaction is
    /// open.
    Transaction(bool),
}

/// A column that must have one of these values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) column: String,
    pub(crate) values: Vec<String>,
}

/// What a `SELECT` without a table asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fact {
    /// The name of the column.
    pub(crate) name: String,
    pub(crate) kind: FactKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FactKind {
    /// Any variable, as well as `VERSION()`.
    Version,
    Database,
    User,
    Connection,
    /// A constant, such as the 1 of `SELECT 1`.
    Constant(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Show {
    Tables,
    Databases,
    Status,
    TableStatus,
    Processes,
    /// The variables whose names are like this pattern; `None`: all.
    Variables(Option<String>),
}
