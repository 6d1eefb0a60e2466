using System.CommandLine;
using NativeLora;
using NativeLora.Cli;
using NativeLora.Cli.Commands;

var root = new RootCommand("LoRA fine-tuning of transformers in .NET: adapters only on the layers that change the representation most.")
{
    DemoCommand.Create(),
    VerifyCommand.Create(),
};
return Shell.Run(root, args);
