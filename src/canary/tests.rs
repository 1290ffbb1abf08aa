pub(crate) mod apiserver;
mod found;
mod streams;
