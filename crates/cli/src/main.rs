// SPDX-License-Identifier: Apache-2.0
//! `msb`: the person's front end of microsandbox.

mod args;
mod base;
mod failure;
mod image;
mod keys;
mod programs;
mod start;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Command, ImageCommand, ServerCommand};

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match args.command {
        Command::Server { command } => match command {
            ServerCommand::Start(arguments) => start::run(arguments),
            ServerCommand::Keygen(arguments) => keys::make(arguments),
            ServerCommand::Keys(arguments) => keys::list(arguments),
            ServerCommand::Revoke(arguments) => keys::revoke(arguments),
        },
        Command::Image { command: ImageCommand::BuildBase(arguments) } => image::build_base(arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(),
    }
}
