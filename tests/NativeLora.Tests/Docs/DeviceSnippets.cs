using NativeLora.Cli.Verify;
using NativeLora.Devices;
using NativeLora.Devices.Cpu;
using NativeLora.Graphs;

namespace NativeLora.Tests.Docs;

/// <summary>The device of docs/add-a-device.md: what stands between the marks is what the page shows, and it trains a model as the reference does.</summary>
public sealed class DeviceSnippets
{
    [SharedFact]
    public void ADeviceThatCountsTrainsAsTheReference()
    {
        using var cpu = new CpuDevice(1);
        using var device = new CountingDevice(cpu);
        using var output = new StringWriter();
        new CaseVerifier(Shared.Path("fixtures", "models", "bert-cls"), device, new VerifyReport(output), variant => variant == "lora-selected").Run();
        Assert.DoesNotContain("FAIL", output.ToString(), StringComparison.Ordinal);
        Assert.Contains("bert-cls lora-selected final_weights[", output.ToString(), StringComparison.Ordinal);
        Assert.True(device.Bound["lora_linear"] > 0 && device.Bound["attention_grad"] > 0);
    }

    // <device>
    internal sealed class CountingDevice(CpuDevice cpu) : Device
    {
        public Dictionary<string, int> Bound { get; } = [];

        public override string Name => "counting";

        public override string Description => $"{cpu.Description}, counted";

        public override long ScratchBytes => cpu.ScratchBytes;

        internal override Device NewPlanner() => cpu.NewPlanner();

        internal override DeviceBuffer Allocate(long bytes) => cpu.Allocate(bytes);

        internal override DeviceBuffer? Share(nint host, long bytes) => cpu.Share(host, bytes);

        internal override OptimizerKernel Optimizer(ParameterStore parameters) => cpu.Optimizer(parameters);

        internal override Kernel Bind(Node node, ITensorAddresses addresses, BatchSize capacity)
        {
            Bound[node.Op.Name] = Bound.GetValueOrDefault(node.Op.Name) + 1;
            return cpu.Bind(node, addresses, capacity);
        }
    }
    // </device>
}
