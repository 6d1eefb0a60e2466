using System.CommandLine;
using System.CommandLine.Help;
using NativeLora.Cli;
using NativeLora.Cli.Commands;

var root = new Command("nativelora", "LoRA fine-tuning of transformers in .NET: adapters only on the layers that change the representation most.")
{
    new HelpOption { Recursive = true },
    new VersionOption(),
    DemoCommand.Create(),
    InfoCommand.Create(),
    DownloadCommand.Create(),
    SelectCommand.Create(),
    MemoryCommand.Create(),
    TrainCommand.Create(),
    RunCommand.Create(),
    StudyCommand.Create(),
    ReportCommand.Create(),
    EvalCommand.Create(),
    ScoreCommand.Create(),
    PredictCommand.Create(),
    GenerateCommand.Create(),
    MergeCommand.Create(),
    CombineCommand.Create(),
    VerifyCommand.Create(),
};
RankRun.LeaveTerminal();
Signals.Listen();
var (output, error) = (new StandardStream(Console.Out), new StandardStream(Console.Error));
Console.SetOut(output);
Console.SetError(error);
var code = Shell.Run(root, args);
output.Flush();
if (output.Failure is not { } failure || code != 0)
    return code;
Shell.Fail($"the work is done, but not all of its output could be written: {failure}");
return Shell.Failure;
