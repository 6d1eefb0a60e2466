using System.CommandLine;
using NativeLora.Adapters;
using NativeLora.Cli.Demo;
using NativeLora.Data;
using NativeLora.Devices.Cpu;
using NativeLora.Models;
using NativeLora.Selection;
using NativeLora.Training;
namespace NativeLora.Cli.Commands;
internal static class DemoCommand
{
    public static Command Create()
    {
        var command = new Command("demo", "x");
        command.SetAction(_ => Run());
        return command;
    }
    static double E(string n, double d) => double.TryParse(Environment.GetEnvironmentVariable(n), out var v) ? v : d;
    static int Run()
    {
        var d = new DemoSettings();
        var s = d with { Hidden = (int)E("H", d.Hidden), Intermediate = (int)E("I", d.Intermediate), Layers = (int)E("L", d.Layers), Word = (int)E("W", d.Word), BaseSteps = (int)E("BS", d.BaseSteps), BaseBatch = (int)E("BB", d.BaseBatch), BaseRate = E("BR", d.BaseRate), TuneSteps = (int)E("TS", d.TuneSteps), TuneBatch = (int)E("TB", d.TuneBatch), TuneRate = E("TR", d.TuneRate), Seed = (ulong)E("SEED", 0), Repeats = (int)E("R", d.Repeats) };
        var lang = new DemoLanguage(s.Word);
        var cipher = SplitMix64.Named(s.Seed, "cipher").Permutation(DemoLanguage.Alphabet);
        var sw = System.Diagnostics.Stopwatch.StartNew();
        var dir = "/tmp/demoexp/base";
        Directory.CreateDirectory(dir);
        using var device = new CpuDevice(2);
        DemoBase.WriteFresh(dir, s, lang);
        using (var pre = PretrainedModel.Open(dir, device))
        using (var model = TrainableModel.InFull(pre, ModelHead.LanguageModel))
        {
            using var learner = new DemoLearner(model, lang, s.BaseBatch);
            var data = lang.Examples(SplitMix64.Named(s.Seed, "base"), s.BaseSteps * s.BaseBatch, DemoLanguage.BaseRules);
            var testers = DemoLanguage.BaseRules.Select(r => learner.NewTester(lang.Examples(SplitMix64.Named(s.Seed, "t" + r), 128, [r]))).ToList();
            learner.Train(data, s.BaseRate, (step, loss) => { if (step % Math.Max(1, s.BaseSteps / 8) == 0) Console.WriteLine($"{step} {loss:0.000} {sw.Elapsed.TotalSeconds:0.0}s  " + string.Join(" ", testers.Select(t => t.Accuracy().ToString("0.00")))); }, default);
            learner.Seconds.Sort();
            Console.WriteLine($"base ms/step {1000 * learner.Seconds[s.BaseSteps / 2]:0.0}");
            DemoBase.Write(dir + "2", model.Parameters);
            File.Copy(dir + "/config.json", dir + "2/config.json", true);
        }
        using var tuned = PretrainedModel.Open(dir + "2", device);
        var lora = new LoraConfig { Rank = s.Rank, Alpha = 2 * s.Rank, TargetModules = ModuleSelector.Of(Environment.GetEnvironmentVariable("TM") == "qv" ? ["q_proj", "v_proj"] : ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]), TaskType = "CAUSAL_LM" };
        var sel = SelectionPipeline.Run(tuned, lang.Examples(SplitMix64.Named(s.Seed, "select"), 128, DemoLanguage.BaseRules, cipher), new SelectionRequest { Model = "b", Options = new SelectionOptions { Family = ModelFamily.Decoder, Ratio = 0.5 }, Features = FeatureOptions.For(ModelFamily.Decoder, SelectionRule.Paper, null, DemoLanguage.EndOfText) });
        Console.WriteLine("CKA " + string.Join(" ", sel.Report.Layers.Select(l => l.Cka?.ToString("0.000"))) + " " + sel.Selection.Mask + " " + sw.Elapsed.TotalSeconds);
        var test = lang.Examples(SplitMix64.Named(s.Seed, "test"), s.TestExamples, DemoLanguage.BaseRules, cipher);
        foreach (var st in new[] { "all", "cka", "random", "last", "first" })
            for (var r = 0; r < s.Repeats; r++)
            {
                var o = SelectionOptions.Parse(st) with { Family = ModelFamily.Decoder, Ratio = st == "all" ? null : 0.5, Seed = s.Seed + (ulong)r };
                var chosen = st == "cka" ? sel.Selection : LayerSelection.Select(s.Layers, null, o);
                using var model = TrainableModel.WithAdapters(tuned, ModelHead.LanguageModel, TargetResolver.ForLayers(lora, tuned.Modules(ModelHead.LanguageModel), [.. chosen.Selected]), seed: s.Seed + (ulong)r);
                using var learner = new DemoLearner(model, lang, s.TuneBatch);
                using var tester = learner.NewTester(test);
                var curve = new List<string> { tester.Accuracy().ToString("0.00") };
                learner.Train(lang.Examples(SplitMix64.Named(s.Seed, "tune" + r), s.TuneSteps * s.TuneBatch, DemoLanguage.BaseRules, cipher), s.TuneRate, (step, loss) => { if (step % Math.Max(1, s.TuneSteps / 8) == 0) curve.Add(tester.Accuracy().ToString("0.00")); }, default);
                learner.Seconds.Sort();
                Console.WriteLine($"{st,-7} {chosen.Mask} {string.Join(" ", curve)}  {1000 * learner.Seconds[s.TuneSteps / 2]:0.0} ms  {sw.Elapsed.TotalSeconds:0.0}s");
            }
        return 0;
    }
}
