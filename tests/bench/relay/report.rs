//! Tables for people, and the same figures for programs.

use serde_json::{Map, Value, json};

/// A table: names of rows, and a value for each column.
pub struct Table {
    title: String,
    columns: Vec<&'static str>,
    rows: Vec<(String, Vec<Value>)>,
}

impl Table {
    pub fn new(title: impl Into<String>, columns: &[&'static str]) -> Self {
        Self { title: title.into(), columns: columns.to_vec(), rows: Vec::new() }
    }

    pub fn row(&mut self, name: impl Into<String>, values: impl IntoIterator<Item = Value>) {
        self.rows.push((name.into(), values.into_iter().collect()));
    }

    pub fn print(&self) {
        println!("\n{}", self.title);
        let widths: Vec<usize> = self.columns.iter().map(|column| column.len().max(9)).collect();
        print!("  {:<26}", "");
        for (column, width) in self.columns.iter().zip(&widths) {
            print!("  {column:>width$}");
        }
        println!();
        for (name, values) in &self.rows {
            print!("  {name:<26}");
            for (value, width) in values.iter().zip(&widths) {
                let text = if value.is_null() { "-".to_owned() } else { value.to_string() };
                print!("  {text:>width$}");
            }
            println!();
        }
    }

    pub fn json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|(name, values)| {
                let columns = self.columns.iter().map(|column| (*column).to_owned());
                let mut row: Map<String, Value> = columns.zip(values.iter().cloned()).collect();
                row.insert("of".into(), json!(name));
                Value::Object(row)
            })
            .collect();
        json!({"title": self.title, "rows": rows})
    }
}

fn rounded(value: f64, steps: f64) -> Value {
    json!((value * steps).round() / steps)
}

/// Two or three digits of something about 1.
pub fn ratio(value: f64) -> Value {
    rounded(value, 1000.0)
}

pub fn micros(value: f64) -> Value {
    rounded(value, 10.0)
}

/// What is not there is not zero.
pub fn maybe(value: Option<f64>) -> Value {
    value.map_or(Value::Null, ratio)
}
