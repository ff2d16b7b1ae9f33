// SPDX-License-Identifier: Apache-2.0
//! `msb`: the person's front end of microsandbox.

mod args;
mod failure;
mod keys;
mod programs;
mod start;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Command, ServerCommand};

fn main() -> ExitCode {
    let args = Args::parse();
    let Command::Server { command } = args.command;
    let result = match command {
        ServerCommand::Start(arguments) => start::run(arguments),
        ServerCommand::Keygen(arguments) => keys::make(arguments),
        ServerCommand::Keys(arguments) => keys::list(arguments),
        ServerCommand::Revoke(arguments) => keys::revoke(arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(),
    }
}
