// SPDX-License-Identifier: Apache-2.0
//! `msb`: the person's front end of microsandbox.

mod args;
mod base;
mod doctor;
mod failure;
mod images;
mod interrupt;
mod keys;
mod logins;
mod output;
mod programs;
mod pull;
mod registry;
mod selftest;
mod start;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Command, ImageCommand, RegistryCommand, ServerCommand};

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match args.command {
        Command::Server { command } => match command {
            ServerCommand::Start(arguments) => start::run(*arguments),
            ServerCommand::Keygen(arguments) => keys::make(arguments),
            ServerCommand::Keys(arguments) => keys::list(arguments),
            ServerCommand::Revoke(arguments) => keys::revoke(arguments),
        },
        Command::Pull(arguments) => pull::run(arguments),
        Command::Image { command } => match command {
            ImageCommand::Ls(arguments) => images::shown::list(arguments),
            ImageCommand::Inspect(arguments) => images::shown::inspect(arguments),
            ImageCommand::Rm(arguments) => images::removed::remove(arguments),
            ImageCommand::Prune(arguments) => images::removed::prune(arguments),
            ImageCommand::Save(arguments) => images::archive::save(arguments),
            ImageCommand::Load(arguments) => images::archive::load(arguments),
            ImageCommand::BuildBase(arguments) => images::built::build_base(arguments),
        },
        Command::Doctor(arguments) => doctor::run(arguments),
        Command::Selftest(arguments) => selftest::run(arguments),
        Command::Registry { command } => match command {
            RegistryCommand::Login(arguments) => logins::login(arguments),
            RegistryCommand::Logout(arguments) => logins::logout(arguments),
            RegistryCommand::Ls(arguments) => logins::list(arguments),
        },
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(),
    }
}
