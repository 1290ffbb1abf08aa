mod apiserver;
mod found;
mod streams;
