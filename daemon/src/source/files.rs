//! Files: a touch is a publish.
