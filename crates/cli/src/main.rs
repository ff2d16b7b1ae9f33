// SPDX-License-Identifier: Apache-2.0
//! `msb`: the person's front end of microsandbox.

mod args;
mod failure;
mod programs;
mod start;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Command, ServerCommand};

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match args.command {
        Command::Server { command: ServerCommand::Start(arguments) } => start::run(arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(),
    }
}
