//! A declared column outside any query: for whoever reads whole files or tables into another store.

use crate::{
    compile::Resolved,
    declare::{Column, ElementKind, Standard, Transform},
    transform::{self, Stored},
};
use std::borrow::Cow;

/// Turns cells of one declared column into the standard's form.
#[derive(Clone, Debug)]
pub struct Cell(Resolved);

impl Cell {
    /// The reader of a column as declared. The text must already be UTF-8: `gbk` is no transform here.
    pub fn new(standard: &Standard, column: &Column) -> Result<Self, String> {
        let element = standard.elements.get(&column.element);
        let kind = element.ok_or(format!("the standard has no data element `{}`", column.element))?.kind;
        if column.transform.contains(&Transform::Gbk) {
            return Err(format!("`{}`: declare the file's encoding in place of `gbk`", column.column));
        }
        Ok(Self(Resolved {
            name: column.column.clone(),
            kind,
            transform: column.transform.clone(),
            none: column.none.clone(),
            parted: column.parted.clone(),
            scan: false,
        }))
    }

    /// What its values are.
    pub fn kind(&self) -> ElementKind {
        self.0.kind
    }

    /// Whether cells are written as the standard writes them.
    pub fn is_plain(&self) -> bool {
        self.0.transform.is_empty() && self.0.none.is_empty() && self.0.parted.is_none()
    }

    /// The value in the standard's form; none where the cell is empty or says that there is none. The error never holds the value.
    pub fn read<'a>(&self, text: &'a str) -> Result<Option<Cow<'a, str>>, String> {
        if text.is_empty() {
            return Ok(None);
        }
        if self.is_plain() && matches!(self.0.kind, ElementKind::Text | ElementKind::Code) {
            if text.len() > transform::VALUE_BYTES_MAX {
                return Err("the value is too long".into());
            }
            return Ok(Some(Cow::Borrowed(text)));
        }
        let read = transform::read_cell(Some(Stored::Text(text.to_owned())), &self.0)?;
        Ok(read.filter(|value| !value.is_empty()).map(Cow::Owned))
    }
}
