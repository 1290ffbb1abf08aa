pub(crate) mod apiserver;
mod found;
mod spdy;
mod streams;
